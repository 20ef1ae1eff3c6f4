// Returns a list of problems: what a screen reader or a keyboard cannot use, and text with too little contrast.
const problems = [];
const shown = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";
const all = (selector) => [...document.querySelectorAll(selector)].filter(shown);
const outline = (element) => element.outerHTML.slice(0, 80);

if (!document.documentElement.lang) problems.push("the page has no language");
if (!document.title) problems.push("the page has no title");

const levels = all("h1, h2, h3, h4, h5, h6").map((heading) => Number(heading.tagName[1]));
if (levels.filter((level) => level === 1).length !== 1) problems.push(`headings: ${levels}: not one h1`);
levels.forEach((level, at) => {
  if (level > (levels[at - 1] ?? 0) + 1) problems.push(`headings: ${levels}: a level is left out`);
});

const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
if (new Set(ids).size !== ids.length) problems.push(`an id is used twice: ${ids}`);

for (const field of all("input, select, textarea")) {
  const label = field.labels?.length || field.getAttribute("aria-label");
  if (!label) problems.push(`no label: ${outline(field)}`);
}
for (const control of all("a, button")) {
  if (!control.textContent.trim() && !control.getAttribute("aria-label")) problems.push(`no name: ${outline(control)}`);
  if (control.tabIndex < 0) problems.push(`not reachable by keyboard: ${outline(control)}`);
}
for (const image of all("svg, img")) {
  if (!image.getAttribute("aria-label") && !image.alt) problems.push(`no description: ${outline(image)}`);
}
for (const table of all("table")) {
  const headers = [...table.querySelectorAll("th")];
  if (!headers.length || headers.some((header) => !header.scope)) problems.push(`headers without scope: ${outline(table)}`);
}
for (const box of all("pre, div, table")) {
  const scrolls = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
  if (scrolls && box.tabIndex < 0) problems.push(`scrolls but takes no focus: ${outline(box)}`);
}
if (document.documentElement.scrollWidth > innerWidth) {
  problems.push(`the page is ${document.documentElement.scrollWidth} pixels wide, the screen ${innerWidth}`);
}

const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = numbers(colour).map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if ((numbers(colour)[3] ?? 1) > 0) return colour;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "rgb(18, 18, 18)" : "rgb(255, 255, 255)";
};
const tried = new Set();
for (const element of all("body *")) {
  const hasText = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
  if (!hasText || element.closest("svg")) continue;
  const colours = [getComputedStyle(element).color, background(element)];
  if (tried.has(colours.join())) continue;
  tried.add(colours.join());
  const [bright, dark] = colours.map(luminance).sort((a, b) => b - a);
  const contrast = (bright + 0.05) / (dark + 0.05);
  if (contrast < 4.5) problems.push(`contrast ${contrast.toFixed(2)}: ${outline(element)}`);
}
return problems;
