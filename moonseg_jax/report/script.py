"""The page's only script: sorts and filters galleries, enlarges cards, reads charts out.

Without it everything is there, in the order it was written; what needs it stays hidden.
"""

from __future__ import annotations

import base64
import hashlib

SCRIPT = """
"use strict";
for (const gallery of document.querySelectorAll("[data-gallery]")) {
  const find = (name) => gallery.querySelector(`[name=${name}]`);
  const list = gallery.querySelector(".scenes"), cards = [...list.children];
  const sort = find("sort"), words = find("words"), size = find("size"), said = gallery.querySelector("output");
  const number = (card, name) => (card.dataset[name] ? Number(card.dataset[name]) : NaN);
  const order = () => {
    const [name, way] = sort.value.split(" "), sign = way === "down" ? -1 : 1;
    const compare = (a, b) => {
      const x = number(a, name), y = number(b, name);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return sign * (x - y);
    };
    list.append(...[...cards].sort(compare));
  };
  const choose = () => {
    const wanted = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const phrase = card.querySelector("h3").textContent.toLowerCase();
      const fits = wanted.every((word) => phrase.includes(word)) && (!size.value || size.value === card.dataset.size);
      card.hidden = !fits;
      shown += fits;
    }
    said.value = shown === cards.length ? `all ${shown} shown` : `${shown} of ${cards.length} shown`;
  };
  sort.addEventListener("change", order);
  words.addEventListener("input", choose);
  size.addEventListener("change", choose);
  gallery.querySelector(".controls").hidden = false;
  order();
  choose();
}

const dialog = document.querySelector("dialog");
if (dialog) {
  const place = dialog.querySelector(".enlarged");
  for (const button of document.querySelectorAll("button.zoom")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const copy = button.closest(".scene").cloneNode(true);
      copy.querySelector("button.zoom").remove();
      place.replaceChildren(copy);
      dialog.showModal();
    });
  }
  dialog.querySelector("button").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

for (const chart of document.querySelectorAll(".chart")) {
  const drawing = chart.querySelector("svg[tabindex]");
  if (!drawing) continue;
  const rows = [...chart.querySelectorAll("tbody tr")], cursor = drawing.querySelector(".cursor");
  const names = [...chart.querySelectorAll("thead th")].slice(1).map((cell) => cell.textContent);
  const output = chart.querySelector("output");
  let at = rows.length - 1;
  const read = (place) => {
    at = Math.max(0, Math.min(rows.length - 1, place));
    const x = rows[at].dataset.x, cells = [...rows[at].children].map((cell) => cell.textContent);
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x);
    cursor.setAttribute("visibility", "visible");
    const values = cells.slice(1).map((value, k) => (names.length > 1 ? `${names[k]} ${value}` : value));
    output.value = `step ${cells[0]}: ${values.join(", ")}`;
  };
  const leave = () => {
    cursor.setAttribute("visibility", "hidden");
    output.value = "";
  };
  drawing.addEventListener("focus", () => read(at));
  drawing.addEventListener("blur", leave);
  drawing.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    read(to);
  });
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
    const away = rows.map((row) => Math.abs(row.dataset.x - x));
    read(away.indexOf(Math.min(...away)));
  });
  drawing.addEventListener("pointerleave", () => document.activeElement === drawing || leave());
}
"""


def digest(script: str) -> str:
    """A script as a Content-Security-Policy names it: the browser runs this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'"
