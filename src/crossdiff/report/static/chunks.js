// base64 -> bytes -> text through the browser's own decompression.
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let index = 0; index < raw.length; index += 1) bytes[index] = raw.charCodeAt(index);
  return bytes;
}

async function unpack(text, format) {
  const stream = new Blob([bytesOf(text.trim())]).stream().pipeThrough(new DecompressionStream(format));
  return new Response(stream).text();
}

const opened = new Map();

async function chunk(pair, latent) {
  const key = `${pair}-${latent}`;
  if (!opened.has(key)) {
    const holder = document.getElementById(`chunk-${key}`);
    opened.set(key, holder ? JSON.parse(await unpack(holder.textContent, "deflate")) : { groups: [], figures: {}, votes: {} });
  }
  return opened.get(key);
}
