// A box dragged over the photo becomes the text of the field that says where to look, in units of the photo.
// Mouse, pen and finger alike; a press without a drag is left to the page, which takes it for a point.
// Knows nothing of the page but two ids: #picture, which holds one <img>, and #where, which holds one text field.
() => {
  const FARTHEST_OF_A_CLICK = 5; // Pixels of the screen.
  let drag = null; // { pointer, from: [x, y] on the screen, band: element or null }
  let hasJustEnded = false;

  const image = () => document.querySelector("#picture img");

  // Where the photo itself lies on the screen: the element may have bars beside it.
  function photoOnScreen() {
    const shown = image(), frame = shown.getBoundingClientRect();
    const width = shown.naturalWidth, height = shown.naturalHeight;
    const across = frame.width / width, down = frame.height / height;
    const fit = getComputedStyle(shown).objectFit;
    if (fit === "fill") return frame;
    let scale = Math.min(across, down);
    if (fit === "cover") scale = Math.max(across, down);
    if (fit === "none") scale = 1;
    if (fit === "scale-down") scale = Math.min(scale, 1);
    const left = frame.left + (frame.width - width * scale) / 2;
    const top = frame.top + (frame.height - height * scale) / 2;
    return new DOMRect(left, top, width * scale, height * scale);
  }

  // Two places on the screen as a box within the photo, in pixels of the screen.
  function dragged(from, to) {
    const photo = photoOnScreen();
    const x = [from[0], to[0]].map((at) => Math.min(Math.max(at, photo.left), photo.right)).sort((a, b) => a - b);
    const y = [from[1], to[1]].map((at) => Math.min(Math.max(at, photo.top), photo.bottom)).sort((a, b) => a - b);
    return { photo, left: x[0], right: x[1], top: y[0], bottom: y[1] };
  }

  function showBand(box) {
    if (!drag.band) {
      drag.band = document.createElement("div");
      drag.band.id = "drag-band";
      (document.fullscreenElement || document.body).append(drag.band);
    }
    const width = box.right - box.left, height = box.bottom - box.top;
    Object.assign(drag.band.style, {
      left: `${box.left}px`, top: `${box.top}px`, width: `${width}px`, height: `${height}px`,
    });
  }

  function end() {
    drag?.band?.remove();
    drag = null;
  }

  function send(box) {
    const { photo } = box;
    if (box.right <= box.left || box.bottom <= box.top) return; // Beside the photo.
    const units = [
      (box.left - photo.left) / photo.width, (box.top - photo.top) / photo.height,
      (box.right - photo.left) / photo.width, (box.bottom - photo.top) / photo.height,
    ];
    const field = document.querySelector("#where textarea, #where input");
    const kind = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    // Frameworks watch the property of the element, not that of its kind.
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, units.map((at) => at.toFixed(4)).join(", "));
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  addEventListener("pointerdown", (event) => {
    hasJustEnded = false;
    if (drag) return end(); // A second finger: a pinch, no box.
    const shown = image();
    if (event.button !== 0 || !shown?.naturalWidth || !event.target.contains(shown)) return;
    if (!event.target.closest("#picture")) return;
    drag = { pointer: event.pointerId, from: [event.clientX, event.clientY], band: null };
  }, true);

  addEventListener("pointermove", (event) => {
    if (event.pointerId !== drag?.pointer) return;
    const [x, y] = drag.from;
    if (!drag.band && Math.hypot(event.clientX - x, event.clientY - y) <= FARTHEST_OF_A_CLICK) return;
    showBand(dragged(drag.from, [event.clientX, event.clientY]));
  }, true);

  addEventListener("pointerup", (event) => {
    if (event.pointerId !== drag?.pointer) return;
    if (drag.band) {
      hasJustEnded = true;
      send(dragged(drag.from, [event.clientX, event.clientY]));
    }
    end();
  }, true);

  addEventListener("pointercancel", end, true);
  addEventListener("blur", end);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !drag) return;
    hasJustEnded = true;
    end();
  }, true);

  // The browser makes a click of every press and release; that of a drag is no point.
  addEventListener("click", (event) => {
    if (hasJustEnded && event.detail > 0) event.stopImmediatePropagation();
    hasJustEnded = false;
  }, true);

  // Otherwise the browser drags a copy of the picture about.
  addEventListener("dragstart", (event) => {
    if (event.target.closest?.("#picture")) event.preventDefault();
  }, true);
}
