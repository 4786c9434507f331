const THEMES = ["auto", "light", "dark"];
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
const themeListeners = [];
let theme = "auto";

function isDark() {
  return theme === "dark" || (theme === "auto" && systemDark.matches);
}

function applyTheme() {
  document.documentElement.toggleAttribute("data-dark", isDark());
  const name = { auto: "Auto", light: "Light", dark: "Dark" }[theme];
  themeButton.textContent = `◐ ${name}`;
  themeButton.setAttribute("aria-label", `Colour theme: ${name}`);
  for (const listener of themeListeners) listener();
}

themeButton.addEventListener("click", () => {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  applyTheme();
});
systemDark.addEventListener("change", applyTheme);
applyTheme();
