// The page, in the order in which it should be read.
const start = () => {
  const main = document.getElementById("main");
  const parts = [headerBlock(), problemsSection()];
  if (groups.length) parts.push(bestSection(), heatSection(), ecdfSection(), lanesSection(), splitSection(), bandwidthSection());
  else parts.push(section("best", "Which is best for my budget?", null, h("p", { class: "absent" }, DATA.cells.length ? "No cell has a trial that may be used; the reasons stand above." : "The store is empty. Measure something: python harness/run.py algo=quest tier=hbm+cpu")));
  parts.push(historySection());
  if (DATA.cells.length) parts.push(tableSection());
  parts.push(h("footer", {}, "Medians over trials with their range; intervals as each number says. What was not observable is left out, never drawn as zero."));
  main.replaceChildren(...parts);
  document.body.dataset.ready = "yes";
};
start();
