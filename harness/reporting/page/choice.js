// What the reader has chosen; everything that depends on it draws itself anew.
const AXES = ["tpot_ratio", "tpot", "kv", "kv_ratio", "hbm", "memory", "ttft_ratio"];
const GOALS = [
  ["acc", "highest accuracy"],
  ["tpot_ratio", "lowest TPOT"],
  ["kv", "fewest KV bytes"],
  ["memory", "least memory"],
];
const LIMITS = [
  ["tpot_ratio", "TPOT ratio at most"],
  ["kv", "KV bytes per step at most"],
  ["hbm", "HBM peak at most"],
  ["acc", "Accuracy at least"],
];
const state = { group: groups[0], axis: "tpot_ratio", goal: "acc", limits: {}, points: [] };
const listeners = [];
const onChoice = (draw) => listeners.push(draw);
const chosen = () => listeners.forEach((draw) => draw());

const known = (points, key) => points.filter((one) => one.readings[key]);
const usableAxes = () => AXES.filter((key) => known(state.points, key).length);

const chooseGroup = (number) => {
  state.group = groups.find((group) => group.number === Number(number));
  state.points = state.group ? pointsOf(state.group) : [];
  state.limits = {};
  if (!known(state.points, state.axis).length) state.axis = usableAxes()[0] || "kv";
  if (!known(state.points, state.goal).length) state.goal = "acc";
};
if (state.group) chooseGroup(state.group.number);

const groupName = (group) => `${group.name.join(" · ")} (${plural(new Set(group.rows.map((row) => row.number)).size, "cell")})`;
const groupChoice = () => choices("Compare within", groups.map((group) => [group.number, groupName(group)]), state.group.number, (number) => {
  chooseGroup(number);
  chosen();
});

// The theme of the system, unless one is chosen.
const themeButton = () => {
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const button = h("button", { type: "button", class: "quiet theme" });
  const show = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`); };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; show(); });
  show();
  return button;
};
