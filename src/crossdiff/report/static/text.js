// Hostile text: everything reaches the page through text nodes; invisible and direction-changing
// characters become glyphs that can be seen.
const GLYPHS = {
  0x200b: "ZWSP", 0x200c: "ZWNJ", 0x200d: "ZWJ", 0x200e: "LRM", 0x200f: "RLM", 0x061c: "ALM", 0x2060: "WJ", 0xfeff: "BOM",
  0x202a: "LRE", 0x202b: "RLE", 0x202c: "PDF", 0x202d: "LRO", 0x202e: "RLO",
  0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI",
};
// A joiner between two pictographs makes one emoji and stays.
const HIDDEN = /(?<=\p{Extended_Pictographic}[\uFE0F\u{1F3FB}-\u{1F3FF}]?)\u200D(?=\p{Extended_Pictographic})|[\u200B-\u200F\u061C\u2060\uFEFF\u202A-\u202E\u2066-\u2069\u0000-\u0008\u000B-\u001F\u007F-\u009F]/gu;

function glyph(character) {
  const code = character.codePointAt(0);
  return `⟨${GLYPHS[code] || `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}⟩`;
}

const PLAIN = /^[\x20-\x7E]*$/;

function visible(text) {
  const plain = String(text ?? "");
  return PLAIN.test(plain) ? plain : plain.replace(HIDDEN, (found, offset, whole) => joinsEmoji(found, offset, whole) ? found : glyph(found));
}

function joinsEmoji(found, offset, whole) {
  return found === "\u200D" && /\p{Extended_Pictographic}[\uFE0F\u{1F3FB}-\u{1F3FF}]?$/u.test(whole.slice(Math.max(0, offset - 4), offset))
    && /^\p{Extended_Pictographic}/u.test(whole.slice(offset + 1, offset + 3));
}

function addText(parent, text) {
  if (PLAIN.test(text)) { parent.append(text); return; }
  let last = 0;
  for (const found of text.matchAll(HIDDEN)) {
    if (joinsEmoji(found[0], found.index, text)) continue;
    if (found.index > last) parent.append(text.slice(last, found.index));
    parent.append(element("span", "glyph", glyph(found[0])));
    last = found.index + found[0].length;
  }
  if (last < text.length) parent.append(text.slice(last));
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

function readJson(id) {
  const holder = document.getElementById(id);
  return holder ? JSON.parse(holder.textContent) : null;
}

function readable(slug) {
  const text = visible(String(slug ?? "").replaceAll("_", " "));
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function figure(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(3)));
}
