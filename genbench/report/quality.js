// Quality against cost: one metric and the models that are chosen, in all figures at once.
'use strict';

(() => {
  const data = read('data-quality');
  if (!data) return;
  const metric = document.getElementById('quality-metric');
  const boxes = [...document.querySelectorAll('#quality-controls input[type=checkbox]')];
  const places = [...document.querySelectorAll('.chart.quality')];

  const spec = (cost) => {
    const { title, lower } = data.metrics[metric.value];
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const points = data.points.filter(
      (point) => point.metric === metric.value && chosen.has(point.variant) && point[cost] && (data.every[cost] || point.top),
    );
    if (!points.length) return null;
    const made = structuredClone(data.specs[cost]);
    const y = made.layer[1].encoding.y;
    y.title = `${title} (${lower ? 'lower' : 'higher'} is better)`;
    if (!lower) y.scale = { type: 'linear', zero: false, padding: 12 };
    const bar = made.layer[1].layer[0].encoding.y;
    bar.title = y.title;
    bar.scale = y.scale;
    const floor = data.floors[metric.value];
    made.datasets = { points, floor: floor === undefined ? [] : [{ value: floor }] };
    return made;
  };

  const render = (place) => {
    const made = spec(place.dataset.cost);
    if (made) return draw(place, made);
    place.dataset.drawn = 'empty';
    place.replaceChildren(Object.assign(document.createElement('p'), { className: 'empty', textContent: 'Nothing chosen has this number.' }));
  };

  const again = () => places.filter((place) => place.dataset.drawn).forEach(render);
  const all = (checked) => {
    for (const box of boxes) box.checked = checked;
    again();
  };

  places.forEach((place) => whenSeen(place, () => render(place)));
  metric.addEventListener('change', again);
  boxes.forEach((box) => box.addEventListener('change', again));
  document.getElementById('quality-all').addEventListener('click', () => all(true));
  document.getElementById('quality-none').addEventListener('click', () => all(false));
})();
