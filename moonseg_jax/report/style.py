"""The page's style sheet: light and dark by the reader's setting, readable on a phone and on paper."""

STYLE = """
:root{color-scheme:light dark;--ground:#fbfbfa;--card:#fff;--ink:#1c1e24;--quiet:#686d7a;--line:#e3e4e8;
--accent:#0f766e;--s0:#0f766e;--s1:#c2410c;--s2:#6d28d9;--s3:#a16207;--good:#15803d;--bad:#be123c;
--p0:#94a3b8;--p1:#0e7490;--p2:#7c3aed;--p3:#c2410c;--p4:#a16207;--p5:#15803d;--p6:#be185d;--p7:#d6d8de}
@media (prefers-color-scheme:dark){:root{--ground:#14161b;--card:#1c1f26;--ink:#e7e8ec;--quiet:#9aa0ad;
--line:#2f333d;--accent:#2dd4bf;--s0:#2dd4bf;--s1:#fb923c;--s2:#a78bfa;--s3:#facc15;--good:#4ade80;--bad:#fb7185;
--p0:#64748b;--p1:#22b8cf;--p2:#a78bfa;--p3:#fb923c;--p4:#facc15;--p5:#4ade80;--p6:#f472b6;--p7:#4a5163}}
*{box-sizing:border-box}
[hidden]{display:none!important}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
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
h3{font-size:16px;margin:24px 0 4px;overflow-wrap:anywhere}
h4{font-size:14px;margin:18px 0 2px;color:var(--quiet);font-weight:600}
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
.chart figcaption{display:flex;justify-content:space-between;gap:10px;align-items:baseline}
.chart figcaption span:first-child{color:var(--ink);font-weight:500}
.chart code{font-size:11.5px;color:var(--quiet);font-weight:400}
.latest{color:var(--quiet);white-space:nowrap}
.chart b{color:var(--ink);font-variant-numeric:tabular-nums}
.chart .cursor{stroke:var(--ink);stroke-width:1;stroke-dasharray:3 3}
.readout{display:block;min-height:20px;font-size:12.5px;color:var(--ink);font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}
.chart details{margin:2px 0 4px;font-size:12.5px}
.chart details .wide{max-height:240px;overflow:auto}
.chart table{min-width:0;width:100%}
.chart th,.chart td{padding:3px 12px 3px 0}
.d1{stroke-dasharray:7 4}.d2{stroke-dasharray:2 4}.d3{stroke-dasharray:9 3 2 3}
.line svg{display:inline-block!important;width:26px!important;height:8px!important;margin-right:6px;vertical-align:2px}
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
.controls{display:flex;flex-wrap:wrap;gap:10px 22px;align-items:center;margin:14px 0;font-size:14px;color:var(--quiet)}
.controls select,.controls input,button{font:inherit;color:var(--ink);background:var(--card);
border:1px solid var(--line);border-radius:8px;padding:6px 10px;max-width:100%}
.controls label{display:flex;align-items:center;gap:8px;min-width:0}
.controls output{margin-left:auto;font-variant-numeric:tabular-nums}
button{cursor:pointer}button:hover{border-color:var(--accent)}
.zoom{float:right;padding:0 9px;font-size:12.5px;color:var(--quiet)}
.kept{margin-left:8px;color:var(--quiet);font-size:12.5px}
.pair .panels{grid-template-columns:repeat(6,1fr)}
.groups{display:grid;gap:18px}
.group .panels{grid-template-columns:repeat(auto-fill,minmax(104px,1fr));margin-top:0}
.group .panels figcaption{line-height:1.35;font-variant-numeric:tabular-nums}
.advantage{display:block;color:var(--ink);font-weight:600}
.bar{display:block;height:5px;margin:2px 0 3px;border-radius:3px;position:relative;
background:linear-gradient(90deg,var(--line) calc(50% - .5px),var(--quiet) 0 calc(50% + .5px),var(--line) 0)}
.bar i{position:absolute;top:0;bottom:0}
.bar .plus{left:50%;background:var(--good)}.bar .minus{right:50%;background:var(--bad)}
dialog{width:min(1100px,94vw);max-height:94vh;border:1px solid var(--line);border-radius:14px;padding:16px;
background:var(--ground);color:var(--ink)}
dialog::backdrop{background:#0009}
dialog>button{position:sticky;top:0;z-index:1}
dialog .enlarged{margin-top:12px}
dialog .scene .panels{grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
dialog .group .panels{grid-template-columns:repeat(auto-fit,minmax(min(100%,220px),1fr))}
.spent{display:grid;gap:12px;max-width:820px}
.spent>*{min-width:0}
.whole{display:flex;height:34px;border-radius:8px;overflow:hidden;gap:1px;background:var(--line)}
.whole span{background:var(--c);color:#fff;font-size:12.5px;display:grid;place-items:center;overflow:hidden;
white-space:nowrap;flex-basis:0;min-width:0}
.whole .p7{color:var(--ink)}
.p0{--c:var(--p0)}.p1{--c:var(--p1)}.p2{--c:var(--p2)}.p3{--c:var(--p3)}
.p4{--c:var(--p4)}.p5{--c:var(--p5)}.p6{--c:var(--p6)}.p7{--c:var(--p7)}
rect{fill:var(--c)}
.chart .bars{height:150px;border-radius:4px;margin-top:6px}
.spent th:first-child{white-space:nowrap}
.axis{display:flex;font-size:11.5px;color:var(--quiet);text-align:center;font-variant-numeric:tabular-nums}
.axis span{flex-basis:0;flex-grow:1;min-width:0}
.scene h3{margin:0;line-height:1.35;font-weight:600;overflow-wrap:anywhere}
.ious{margin:2px 0 10px;font-size:14px;color:var(--quiet);font-variant-numeric:tabular-nums}
.ious b{color:var(--ink)}
.change{margin-left:4px}.up{color:var(--good)}.down{color:var(--bad)}
.status{margin-left:8px;padding:1px 8px;border:1px solid var(--bad);border-radius:9px;color:var(--bad);
font-size:12.5px;overflow-wrap:anywhere}
.panels{display:grid;grid-template-columns:repeat(5,1fr);gap:8px}
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
.panels,.pair .panels{grid-template-columns:repeat(3,1fr)}
.controls label{width:100%}.controls select,.controls input{flex:1;min-width:0}.controls output{margin:0}
.group .panels{grid-template-columns:repeat(3,1fr)}
th,td{padding-right:11px;font-size:14px}
dl{grid-template-columns:1fr}dd{margin-bottom:6px}}
@media (prefers-color-scheme:dark){.whole span{color:#0d0f13}.whole .p7{color:var(--ink)}}
@media print{.controls,.zoom,.readout{display:none}}
"""
