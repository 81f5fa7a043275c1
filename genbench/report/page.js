// Shared by all sections: data, figures (drawn when they come into view) and the colour theme.
'use strict';

const read = (name) => {
  const block = document.getElementById(name);
  return block ? JSON.parse(block.textContent) : null;
};

// On a phone, titles and long names take two lines, and numbers stand further apart.
const narrow = (place, spec) => {
  if (place.clientWidth >= 500) return spec;
  for (const { x, y } of [spec, ...(spec.layer || [])].map((part) => part.encoding || {})) {
    if (x && x.axis && x.axis.tickCount) x.axis.tickCount = Math.min(x.axis.tickCount, 4);
    if (x && typeof x.title === 'string' && x.title.length > 30) x.title = x.title.split(/ (?=\()/);
    if (!y || !y.axis || !y.axis.labelLimit) continue;
    y.axis.labelLimit = Math.min(y.axis.labelLimit, place.clientWidth / 2.2);
    if (!y.axis.labelExpr) Object.assign(y.axis, { labelExpr: "split(datum.label, ' · ')", labelFontSize: 10, labelLineHeight: 11, labelBaseline: 'middle' });
  }
  return spec;
};

// The tooltip of a figure: one line for each name and text, in the colours of the page.
const figureTip = document.getElementById('figure-tip');
const tell = (_handler, event, _item, value) => {
  figureTip.hidden = !value || typeof value !== 'object';
  if (figureTip.hidden) return;
  const list = document.createElement('dl');
  for (const [name, text] of Object.entries(value)) {
    if (text === '' || text === undefined || text === 'undefined') continue;
    const pair = document.createElement('div');
    pair.append(Object.assign(document.createElement('dt'), { textContent: name }), Object.assign(document.createElement('dd'), { textContent: text }));
    list.append(pair);
  }
  figureTip.replaceChildren(list);
  const [w, h] = [figureTip.offsetWidth, figureTip.offsetHeight];
  figureTip.style.left = `${Math.max(8, Math.min(event.clientX + 14, window.innerWidth - w - 8))}px`;
  figureTip.style.top = `${event.clientY + 14 + h < window.innerHeight ? event.clientY + 14 : Math.max(8, event.clientY - h - 14)}px`;
};
window.addEventListener('scroll', () => (figureTip.hidden = true), { passive: true });

const draw = (place, spec) =>
  vegaEmbed(place, narrow(place, spec), { actions: false, renderer: 'svg', tooltip: tell }).then((result) => {
    place.dataset.drawn = 'yes';
    return result;
  });

const drawers = new Map(); // place → the function that draws it
const queue = []; // one figure at a time, when the browser is idle, so that a page of many still scrolls
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

const pairs = document.getElementById('pairs-metric');
if (pairs) {
  pairs.addEventListener('change', () => {
    for (const table of document.querySelectorAll('[data-pairs]')) table.hidden = table.dataset.pairs !== pairs.value;
  });
}
for (const link of document.querySelectorAll('a[data-metric]')) { // a finding selects its metric in the figures
  link.addEventListener('click', () => {
    const metric = document.getElementById('quality-metric');
    if (!metric || ![...metric.options].some((option) => option.value === link.dataset.metric)) return;
    metric.value = link.dataset.metric;
    metric.dispatchEvent(new Event('change'));
  });
}

const themes = ['', 'light', 'dark'];
const theme = document.getElementById('theme');
theme.addEventListener('click', () => {
  const next = themes[(themes.indexOf(document.documentElement.dataset.theme || '') + 1) % themes.length];
  document.documentElement.dataset.theme = next;
  theme.setAttribute('aria-label', `Colour theme: ${next || 'follows the system'}`);
});
