"use strict";
// Everything the page shows is set as text; nothing is ever parsed as HTML.
const data = JSON.parse(document.getElementById("data").textContent);

// The same definition of hidden characters as in the Python part (visible.py), which hands the ranges over.
function visible(text) {
  if (/^[\x20-\x7e]*$/.test(text)) return text;
  let shown = "";
  for (const character of text) {
    const code = character.codePointAt(0);
    const hidden = data.hidden.some(([low, high]) => low <= code && code <= high);
    shown += hidden ? "\u27e8U+" + code.toString(16).toUpperCase().padStart(4, "0") + "\u27e9" : character;
  }
  return shown;
}

function cssColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

// A function from [0, 1] to a colour through the stops of a scale, for example --d0, --d1, ... as many as there are.
function ramp(prefix) {
  const stops = [];
  for (let colour = cssColour(prefix + 0); colour; colour = cssColour(prefix + stops.length)) stops.push(channels(colour));
  const last = stops.length - 1;
  return (share) => {
    const place = Math.min(Math.max(share, 0), 1) * last;
    const left = Math.min(Math.floor(place), last - 1);
    const mix = stops[left].map((from, i) => Math.round(from + (place - left) * (stops[left + 1][i] - from)));
    return `rgb(${mix[0]}, ${mix[1]}, ${mix[2]})`;
  };
}
