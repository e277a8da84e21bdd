// Elements. Text is set as text: whatever a record holds, it is never read as HTML.
const SVG = "http://www.w3.org/2000/svg";

const put = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

const h = (tag, attributes, ...children) => put(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => put(document.createElementNS(SVG, tag), attributes, children);

const svg = (width, height, label, ...children) =>
  s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label }, ...children);

const write = (x, y, text, attributes) => s("text", { x, y, ...attributes }, String(text));

// A block that draws itself to the width it has, and again when that changes.
const WIDTHS = new Map();
const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const width = Math.floor(contentRect.width);
    const kept = WIDTHS.get(target);
    if (kept && width > 0 && width !== kept.width) {
      kept.width = width;
      target.replaceChildren(...[kept.draw(width)].flat());
    }
  }
});

const sized = (draw) => {
  const block = h("div", { class: "sized" });
  WIDTHS.set(block, { draw, width: 0 });
  observer.observe(block);
  return block;
};

const redraw = (block) => {
  const kept = WIDTHS.get(block);
  if (kept.width > 0) block.replaceChildren(...[kept.draw(kept.width)].flat());
};

const section = (id, title, lead, ...children) =>
  h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), lead && h("p", { class: "lead" }, lead), ...children);

const choices = (label, options, chosen, change) => {
  const select = h("select", { onchange: (event) => change(event.target.value) });
  for (const [value, text] of options) select.append(h("option", { value, selected: value === String(chosen) }, text));
  return h("label", { class: "choice" }, h("span", {}, label), select);
};

const switches = (label, name, options, chosen, change) =>
  h("fieldset", { class: "switches" }, h("legend", {}, label),
    options.map(([value, text]) =>
      h("label", {}, h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => change(value) }), h("span", {}, text))));

const copyButton = (text, label = "Copy command") => {
  const button = h("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = h("textarea", {}, text);
      (button.closest("dialog") || document.body).append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    button.textContent = done ? "Copied" : "Select it by hand";
    setTimeout(() => { button.textContent = label; }, 1500);
  });
  return button;
};
