"""The page's style sheet: light and dark by the reader's setting, readable on a phone and on paper."""

STYLE = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1c1e24;--quiet:#686d7a;--line:#e3e4e8;
--accent:#0f766e;--s0:#0f766e;--s1:#c2410c;--s2:#6d28d9;--s3:#a16207;--good:#15803d;--bad:#be123c}
@media (prefers-color-scheme:dark){:root{--ground:#14161b;--card:#1c1f26;--ink:#e7e8ec;--quiet:#9aa0ad;
--line:#2f333d;--accent:#2dd4bf;--s0:#2dd4bf;--s1:#fb923c;--s2:#a78bfa;--s3:#facc15;--good:#4ade80;--bad:#fb7185}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:40px}
h1{font-size:30px;line-height:1.2;margin:0;letter-spacing:-.02em;overflow-wrap:anywhere}
header p{margin:6px 0 18px;color:var(--quiet);overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:6px 20px;border-bottom:1px solid var(--line);padding-bottom:12px}
nav a{color:var(--accent);text-decoration:none;font-weight:500}
nav a:hover{text-decoration:underline}
section{margin:36px 0 48px}
h2{font-size:21px;margin:0 0 14px;letter-spacing:-.01em}
h3{font-size:16px;margin:24px 0 4px}
.note{color:var(--quiet);font-size:14px;margin:4px 0 12px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:min(100%,560px)}
caption{text-align:left;color:var(--quiet);font-size:14px;padding-bottom:6px}
th,td{padding:8px 18px 8px 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child{text-align:left;font-weight:500;white-space:normal}
thead th{color:var(--quiet);font-size:13px;font-weight:500}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:16px;margin:10px 0}
figure{margin:0}
.chart{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 12px 6px;
min-width:0}
.chart figcaption{font-size:13px;color:var(--quiet);overflow-wrap:anywhere}
.chart figcaption b{color:var(--ink);float:right;font-variant-numeric:tabular-nums}
.chart svg{display:block;width:100%;height:auto}
.chart text{font-size:10.5px;fill:var(--quiet)}
.chart .grid{stroke:var(--line)}
.chart path{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.chart .raw{stroke-width:1;opacity:.35}
.chart .nothing{color:var(--quiet);font-size:13px}
.s0{stroke:var(--s0);--c:var(--s0)}.s1{stroke:var(--s1);--c:var(--s1)}
.s2{stroke:var(--s2);--c:var(--s2)}.s3{stroke:var(--s3);--c:var(--s3)}
.dot{fill:var(--c)}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;color:var(--quiet)}
.key::before{content:"";display:inline-block;width:11px;height:11px;border-radius:3px;background:var(--c);
margin-right:6px;vertical-align:-1px}
details{margin:8px 0}summary{cursor:pointer;color:var(--accent)}
.scenes{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,500px),1fr));gap:18px}
.scene{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 16px;min-width:0;
break-inside:avoid;display:flex;flex-direction:column}
.scene .panels{margin-top:auto}
.scene h3{margin:0;line-height:1.35;font-weight:600;overflow-wrap:anywhere}
.ious{margin:2px 0 10px;font-size:14px;color:var(--quiet);font-variant-numeric:tabular-nums}
.ious b{color:var(--ink)}
.change{margin-left:4px}.up{color:var(--good)}.down{color:var(--bad)}
.status{margin-left:8px;padding:1px 8px;border:1px solid var(--bad);border-radius:9px;color:var(--bad);
font-size:12.5px;overflow-wrap:anywhere}
.panels{display:grid;grid-template-columns:repeat(4,1fr);gap:8px}
.panels figcaption{font-size:12px;color:var(--quiet);text-align:center;margin-top:3px}
.photo{position:relative;aspect-ratio:var(--shape);border-radius:6px;overflow:hidden;
background:var(--photo) 0 0/100% 100% no-repeat;image-rendering:pixelated}
.photo>img,.photo>svg{position:absolute;inset:0;width:100%;height:100%;image-rendering:pixelated}
.photo path{fill:none;vector-effect:non-scaling-stroke;stroke-linejoin:round;stroke-linecap:round}
.photo .casing{stroke:#000;stroke-opacity:.65;stroke-width:3.5}
.photo .outline{stroke:#fff;stroke-width:1.5;fill:#fff;fill-opacity:.16;fill-rule:evenodd}
.photo .vertices{stroke:#e11d8f;stroke-width:6}
.photo.gone{background:none;border:1px dashed var(--line);display:grid;place-items:center}
.absent{color:var(--quiet);font-size:12.5px}
.tag{position:absolute;left:5px;top:5px;padding:0 6px;border-radius:7px;background:#000b;color:#fff;
font-size:11.5px}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px;overflow-x:auto;
font-size:13.5px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 22px;margin:14px 0}
dt{color:var(--quiet)}dd{margin:0;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
@media (max-width:560px){header,main{padding-left:14px;padding-right:14px}
.panels{grid-template-columns:repeat(2,1fr)}}
"""
