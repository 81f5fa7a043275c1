// What all sections share: data, figures that are drawn when they come into view, and the colour theme.
'use strict';

const read = (name) => {
  const block = document.getElementById(name);
  return block ? JSON.parse(block.textContent) : null;
};

const narrow = (place, spec) => {
  const axis = spec.encoding && spec.encoding.y.axis; // long names leave little room on a phone
  if (axis && place.clientWidth < 500) axis.labelLimit = Math.min(axis.labelLimit, place.clientWidth / 2.6);
  return spec;
};

const draw = (place, spec) =>
  vegaEmbed(place, narrow(place, spec), { actions: false, renderer: 'svg', tooltip: { theme: 'custom' } }).then((result) => {
    place.dataset.drawn = 'yes';
    return result;
  });

const drawers = new Map(); // place → the function that draws it
const queue = []; // one figure at a time, when nothing else is to be done: a page of many keeps scrolling
const idle = window.requestIdleCallback || setTimeout;
const next = async () => {
  try {
    await queue[0]();
  } finally {
    queue.shift();
    if (queue.length) idle(next);
  }
};
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      if (queue.push(drawers.get(entry.target)) === 1) idle(next);
    }
  },
  { rootMargin: '400px' },
);
const whenSeen = (place, drawIt) => {
  drawers.set(place, drawIt);
  seen.observe(place);
};

for (const place of document.querySelectorAll('.chart[data-spec]')) {
  whenSeen(place, () => draw(place, read(place.dataset.spec)));
}
window.addEventListener('beforeprint', () => drawers.forEach((drawIt, place) => place.dataset.drawn || drawIt()));

const themes = ['', 'light', 'dark'];
const theme = document.getElementById('theme');
theme.addEventListener('click', () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme || '') + 1) % themes.length];
  document.documentElement.dataset.theme = next;
  theme.setAttribute('aria-label', `Colour theme: ${next || 'as the system'}`);
});
