"use strict";
// One zoom and position for all images, a divider between two of them, and the way to other frames. What is chosen is
// carried in the address, so that the next frame shows the same part of the same two images.
const find = (selector) => document.querySelector(selector);
const main = find("main");
const stage = find("#stage");
const views = [...document.querySelectorAll(".view:not(.gone)")];
const images = [...document.querySelectorAll(".panels img")];
const slots = images.map((image) => image.dataset.slot);
const MOST = 32;
const state = { left: 0, right: slots.length - 1, zoom: 1, x: 0, y: 0, split: 50, subtract: false };
if (slots.length > 2) state.left = slots.length > 3 ? 2 : 1; // two methods, or the visible image and the only method

function restore() {
  const saved = new URLSearchParams(location.hash.slice(1));
  for (const name of ["left", "right"]) {
    const index = slots.indexOf(saved.get(name));
    if (index >= 0) state[name] = index;
  }
  for (const name of ["zoom", "x", "y", "split"]) {
    const value = Number.parseFloat(saved.get(name));
    if (Number.isFinite(value)) state[name] = value;
  }
  state.subtract = saved.get("subtract") === "1";
}

function show() {
  state.zoom = Math.min(MOST, Math.max(1, state.zoom));
  const room = 1 - 1 / state.zoom;
  state.x = Math.min(room, Math.max(0, state.x));
  state.y = Math.min(room, Math.max(0, state.y));
  state.split = Math.min(100, Math.max(0, state.split));
  const style = main.style;
  style.setProperty("--zoom", state.zoom);
  style.setProperty("--x", state.x);
  style.setProperty("--y", state.y);
  style.setProperty("--split", `${state.split}%`);
  main.classList.toggle("zoomed", state.zoom > 1);
  find("#zoom").textContent = `${Number(state.zoom.toFixed(1))}×`;
  find("#split").value = state.split;
  find("#subtract").setAttribute("aria-pressed", state.subtract);
  stage.classList.toggle("subtract", state.subtract);
  for (const [name, image] of [["left", find(".under")], ["right", find(".over img")]]) {
    const chosen = images[state[name]];
    find(`#${name}`).value = state[name];
    if (image.src !== chosen.src) image.src = chosen.src;
    image.alt = `${name}: ${chosen.alt}`;
    find(`.tag.${name}`).textContent = chosen.alt;
  }
  if (state.subtract) find(".tag.left").textContent = "difference, three times as bright";
  const kept = new URLSearchParams({
    left: slots[state.left], right: slots[state.right], zoom: state.zoom.toFixed(3), x: state.x.toFixed(4),
    y: state.y.toFixed(4), split: state.split.toFixed(1), subtract: state.subtract ? 1 : 0,
  });
  for (const link of document.querySelectorAll("a[rel]")) link.hash = kept;
}
function change(changes) {
  Object.assign(state, changes);
  show();
}

// Zooms so that what is at (across, down), in parts of the view, stays there.
function zoom(factor, across = 0.5, down = 0.5) {
  const next = Math.min(MOST, Math.max(1, state.zoom * factor));
  const step = 1 / state.zoom - 1 / next;
  change({ zoom: next, x: state.x + across * step, y: state.y + down * step });
}
const inside = (view, event) => {
  const area = view.getBoundingClientRect();
  return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
};

for (const view of views) {
  const fingers = new Map();
  let divides = false;
  let divided = 50;
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    fingers.set(event.pointerId, inside(view, event));
    divides = view === stage && !state.subtract && (state.zoom === 1 || event.target.className === "edge");
    view.setPointerCapture(event.pointerId);
    if (fingers.size === 1) divided = state.split;
    if (divides) change({ split: fingers.size === 1 ? 100 * inside(view, event)[0] : divided }); // two fingers pinch
  });
  view.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const after = inside(view, event);
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.hypot(at[0] - other[0], at[1] - other[1]) || 1e-6;
      zoom(apart(after) / apart(before), (after[0] + other[0]) / 2, (after[1] + other[1]) / 2);
      change({ x: state.x - (after[0] - before[0]) / 2 / state.zoom, y: state.y - (after[1] - before[1]) / 2 / state.zoom });
    } else if (divides) {
      change({ split: 100 * after[0] });
    } else {
      change({ x: state.x - (after[0] - before[0]) / state.zoom, y: state.y - (after[1] - before[1]) / state.zoom });
    }
    fingers.set(event.pointerId, after);
  });
  for (const end of ["pointerup", "pointercancel"]) view.addEventListener(end, (event) => fingers.delete(event.pointerId));
  view.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 0.5 : 2, ...inside(view, event)));
  view.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the wheel alone scrolls the page; a pinch arrives with ctrl
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), ...inside(view, event));
  }, { passive: false });
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
  const arrow = ARROWS[event.key];
  if (arrow && state.zoom > 1 && event.target.closest(".view")) {
    event.preventDefault();
    change({ x: state.x + (0.1 * arrow[0]) / state.zoom, y: state.y + (0.1 * arrow[1]) / state.zoom });
  } else if (event.key === "ArrowLeft" || event.key === "p") {
    find("a[rel=prev]")?.click();
  } else if (event.key === "ArrowRight" || event.key === "n") {
    find("a[rel=next]")?.click();
  } else if (event.key === "+" || event.key === "=") {
    zoom(1.5);
  } else if (event.key === "-") {
    zoom(1 / 1.5);
  } else if (event.key === "0") {
    change({ zoom: 1 });
  } else if (event.key === "Escape") {
    find("#up").click();
  }
});

for (const name of ["left", "right"]) {
  images.forEach((image, index) => find(`#${name}`).append(new Option(image.alt, index)));
  find(`#${name}`).addEventListener("change", (event) => change({ [name]: Number(event.target.value) }));
}
find("#split").addEventListener("input", (event) => change({ split: Number(event.target.value) }));
find("#swap").addEventListener("click", () => change({ left: state.right, right: state.left }));
find("#subtract").addEventListener("click", () => change({ subtract: !state.subtract }));
find("#in").addEventListener("click", () => zoom(1.5));
find("#out").addEventListener("click", () => zoom(1 / 1.5));
find("#fit").addEventListener("click", () => change({ zoom: 1 }));
addEventListener("hashchange", () => { restore(); show(); });
find("#compare").hidden = false;
restore();
show();
