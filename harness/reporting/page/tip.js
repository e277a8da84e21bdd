// What a mark says, on hover and on focus, and to a screen reader.
const TIP = document.getElementById("tip");

const hideTip = () => { TIP.hidden = true; };
const showTip = (event, lines) => {
  TIP.replaceChildren(...lines().map((line, number) => h(number ? "div" : "strong", {}, line)));
  TIP.hidden = false;
  const near = event.currentTarget.getBoundingClientRect();
  const x = Math.min(near.right + 10, window.innerWidth - TIP.offsetWidth - 8);
  const y = Math.min(Math.max(8, near.top - 8), window.innerHeight - TIP.offsetHeight - 8);
  TIP.style.transform = `translate(${Math.max(8, x)}px,${y}px)`;
};
window.addEventListener("scroll", hideTip, { passive: true });
window.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

const saying = (lines) => ({
  onmouseenter: (event) => showTip(event, lines),
  onmouseleave: hideTip,
  onfocus: (event) => showTip(event, lines),
  onblur: hideTip,
});

const readingText = (key, one) => {
  const { kind, label } = QUANTITIES[key];
  const range = interval(kind, one);
  return `${label}: ${format(kind, one.v)}${range && ` [${range}]`} (n ${whole(one.n)}; ${one.how})`;
};

// A mark that opens its cell. A keyboard visits those that matter; the table has every cell.
const reachable = (row, lines, isStop = true) => ({
  tabindex: isStop ? "0" : "-1",
  role: isStop ? "button" : null,
  "aria-hidden": isStop ? null : "true",
  "aria-label": isStop ? lines().join(". ") : null,
  ...saying(lines),
  onclick: () => openCell(row.number),
  onkeydown: (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      openCell(row.number);
    }
  },
});
const openCell = (number) => showDetail(number);
