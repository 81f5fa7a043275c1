// Quality against cost: one metric and the models that are chosen, in all figures at once.
'use strict';

(() => {
  const data = read('data-quality');
  if (!data) return;
  const metric = document.getElementById('quality-metric');
  const boxes = [...document.querySelectorAll('#quality-controls input[type=checkbox]')];
  const places = [...document.querySelectorAll('.chart.quality')];

  // 1, 2, 5 of each decade between the values, or only the decades where there are many
  const ticks = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const decades = Array.from({ length: Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 }, (_, i) => 10 ** (Math.floor(Math.log10(low)) + i));
    const among = (steps) => decades.flatMap((decade) => steps.map((step) => Number((step * decade).toPrecision(1)))).filter((tick) => tick >= low * 0.9 && tick <= high * 1.1);
    const all = among([1, 2, 5]);
    return all.length < 2 ? undefined : all.length > 9 ? among([1]) : all;
  };

  const spec = (cost) => {
    const { title, lower } = data.metrics[metric.value];
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    const points = data.points.filter(
      (point) => point.metric === metric.value && chosen.has(point.series) && point[cost] && (data.every[cost] || point.top),
    );
    if (!points.length) return null;
    const made = structuredClone(data.specs[cost]);
    const y = made.layer[1].encoding.y;
    y.title = `${title} (${lower ? 'lower' : 'higher'} is better)`;
    const floor = data.floors[metric.value];
    const heights = [...points.flatMap((point) => [point.low, point.high]), ...(floor === undefined ? [] : [floor])];
    // an unbiased estimate of a squared distance may lie below zero, where there is no logarithm
    if (lower && Math.min(...heights) > 0) y.axis.values = ticks(heights);
    else y.scale = { type: 'linear', zero: false, padding: 12 };
    made.layer[1].encoding.x.axis.values = ticks(points.map((point) => point[cost]));
    Object.assign(made.layer[1].layer[0].encoding.y, { title: y.title, scale: y.scale, axis: y.axis });
    made.datasets = { points, floor: [{ value: floor }] };
    if (floor === undefined) made.layer.shift();
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
