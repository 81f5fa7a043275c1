// Quality against cost: the chosen metric and models, in all figures at once.
'use strict';

(() => {
  const data = read('data-quality');
  if (!data) return;
  const at = (name) => document.getElementById(`quality-${name}`);
  const [metric, axis] = [at('metric'), at('axis')];
  const boxes = [...document.querySelectorAll('#quality-controls input[type=checkbox]')];
  const places = [...document.querySelectorAll('.chart.quality')];
  let zoom = 0; // how many times the distance to the best was halved

  // 1, 2, 5 of each decade between the values, or only the decades if there are many
  const ticks = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const decades = Array.from({ length: Math.ceil(Math.log10(high)) - Math.floor(Math.log10(low)) + 1 }, (_, i) => 10 ** (Math.floor(Math.log10(low)) + i));
    const among = (steps) => decades.flatMap((decade) => steps.map((step) => Number((step * decade).toPrecision(1)))).filter((tick) => tick >= low * 0.9 && tick <= high * 1.1);
    const all = among([1, 2, 5]);
    return all.length < 2 ? undefined : all.length > 9 ? among([1]) : all;
  };

  const selected = () => {
    const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    return data.points.filter((point) => point.metric === metric.value && chosen.has(point.series));
  };

  const below = (low, room) => (low >= 0 ? Math.max(0, low - room) : low - room); // a distance is not negative

  // The range of values of each model's best sampler; one-step samplers would squash it.
  const contest = (points, lower) => {
    const best = new Map();
    for (const point of points) {
      const known = best.get(point.series);
      if (!known || (lower ? point.value < known.value : point.value > known.value)) best.set(point.series, point);
    }
    const [low, high] = [Math.min(...[...best.values()].map((p) => p.low)), Math.max(...[...best.values()].map((p) => p.high))];
    const room = 0.12 * (high - low || Math.abs(high) || 1);
    return [below(low, room), high + room];
  };

  // The visible values: those of the best samplers or of all, halved towards the best `zoom` times.
  const range = (points, floor, lower) => {
    const ends = points.flatMap((point) => [point.low, point.high]);
    let [low, high] = axis.value === 'contest' ? contest(points, lower) : [Math.min(...ends), Math.max(...ends)];
    if (floor !== undefined) [low, high] = [Math.min(low, floor), Math.max(high, floor)];
    const share = 0.5 ** zoom;
    if (lower) high = low + (high - low) * share;
    else low = high - (high - low) * share;
    const room = 0.04 * (high - low);
    return [below(low, room), high + room];
  };

  // Points that would hide each other move sideways, left and right in turn, until they do not.
  const apart = (points, cost, [left, right], [low, high], size, logarithmic) => {
    const scale = (value, a, b, length, log) => (log ? Math.log(value / a) / Math.log(b / a || 1.0001) : (value - a) / (b - a || 1)) * length;
    const placed = [];
    for (const point of points) {
      const [x, y] = [scale(point[cost], left, right, size[0], true), scale(point.value, low, high, size[1], logarithmic)];
      let moved = 0;
      const beside = (other) => point.low <= other.high && point.high >= other.low; // one bar would cover the other
      const hides = () => placed.some(([a, b, other]) => Math.hypot(a - x - moved, b - y) < 11 || (Math.abs(a - x - moved) < 8 && beside(other)));
      for (let turn = 1; turn < 16 && hides(); turn++) moved = (turn % 2 ? 1 : -1) * Math.ceil(turn / 2) * 11;
      placed.push([x + moved, y, point]);
      if (moved) point[cost] = left * (right / left || 1.0001) ** ((x + moved) / size[0]);
    }
    return points;
  };

  const front = (points, cost, lower) => {
    const found = [];
    const sign = lower ? 1 : -1;
    for (const point of [...points].sort((a, b) => a[cost] - b[cost] || sign * (a.value - b.value))) {
      if (!found.length || sign * point.value < sign * found.at(-1).value) found.push({ [cost]: point[cost], value: point.value });
    }
    return found.length > 1 ? found : [];
  };

  const against = (place, cost) => {
    const { title, lower } = data.metrics[metric.value];
    const points = selected().filter((point) => point[cost] && (data.every[cost] || point.top));
    if (!points.length) return null;
    const made = structuredClone(data.specs[cost]);
    const [, drawn] = made.layer;
    const { x, y } = drawn.encoding;
    const floor = data.floors[metric.value];
    y.title = `${title} (${lower ? 'lower' : 'higher'} is better)`;
    const [low, high] = range(points, floor, lower);
    // an unbiased estimate of a squared distance may be negative, and has no logarithm then
    const logarithmic = axis.value === 'log' && !zoom && lower && Math.min(...points.map((point) => point.low), floor ?? 1) > 0;
    if (logarithmic) y.axis.values = ticks([...points.flatMap((point) => [point.low, point.high]), ...(floor === undefined ? [] : [floor])]);
    else y.scale = { type: 'linear', zero: false, nice: false, domain: [low, high] };
    const costs = points.map((point) => point[cost]);
    x.axis.values = ticks(costs);
    const seen = (point) => logarithmic || (point.value <= high && point.value >= low);
    const moved = apart(structuredClone(points.filter(seen)), cost, [Math.min(...costs), Math.max(...costs)], [low, high],
      [Math.max(120, place.clientWidth - 110), 250], logarithmic); // prettier-ignore
    const cut = moved.map((point) => (logarithmic ? point : { ...point, low: Math.max(low, point.low), high: Math.min(high, point.high) }));
    const edge = lower ? high : low;
    const beyond = structuredClone(points.filter((point) => !seen(point))).map((point) => ({ ...point, value: edge }));
    for (const layer of drawn.layer) if (layer.mark.type === 'line') layer.mark.clip = true;
    Object.assign(drawn.layer[0].encoding.y, { title: y.title, scale: y.scale, axis: y.axis });
    made.layer[3].encoding.y = { ...y };
    made.layer[3].encoding.x = { ...x };
    made.layer[3].mark.shape = lower ? 'triangle-up' : 'triangle-down';
    drawn.layer.filter((layer) => layer.mark.type === 'line').forEach((layer) => (layer.data = { name: 'lines' }));
    const flat = apart(beyond, cost, [Math.min(...costs), Math.max(...costs)], [low, high], [Math.max(120, place.clientWidth - 110), 250], false);
    made.datasets = { points: cut, lines: points, front: front(points, cost, lower), beyond: flat, floor: [{ value: floor }] };
    made.layer[2].mark.clip = true;
    const layers = { floor: floor !== undefined && (logarithmic || (floor >= low && floor <= high)), points: true, front: made.datasets.front.length, beyond: beyond.length };
    made.layer = made.layer.filter((_, index) => Object.values(layers)[index]); // an empty one would have no scale
    const said = place.parentNode.querySelector('.beyond');
    const furthest = beyond.length ? points.filter((point) => !seen(point)).reduce((a, b) => ((lower ? b.value > a.value : b.value < a.value) ? b : a)) : null;
    said.textContent = furthest ? `${beyond.length} off the axis; the furthest is ${furthest.label} with ${furthest.said}` : '';
    return made;
  };

  const dots = (place) => {
    const { title, lower } = data.metrics[metric.value];
    const points = structuredClone(selected().filter((point) => data.alone || point.top));
    if (!points.length) return null;
    const made = structuredClone(data.specs.dots);
    const drawn = made.layer[1];
    const floor = data.floors[metric.value];
    const log = axis.value === 'log' && !zoom && lower && Math.min(...points.map((point) => point.low), floor ?? 1) > 0;
    const scale = log ? { type: 'log', nice: false, padding: 14 } : { type: 'linear', zero: false, nice: false, domain: range(points, floor, lower) };
    const heading = `${title} (${lower ? 'lower' : 'higher'} is better)`;
    for (const layer of drawn.layer) Object.assign(layer.encoding.x, { scale, title: heading });
    for (const layer of drawn.layer) layer.mark.clip = true;
    if (log) for (const layer of drawn.layer) layer.encoding.x.axis.values = ticks(points.flatMap((point) => [point.low, point.high]));
    if (place.clientWidth < 500 && !data.alone) points.forEach((point) => (point.label = point.series));
    drawn.encoding.y.sort = [...points].sort((a, b) => (lower ? 1 : -1) * (a.value - b.value)).map((point) => point.label);
    made.height = 26 * new Set(points.map((point) => point.label)).size;
    made.datasets = { points, floor: [{ value: floor }] };
    if (floor === undefined) made.layer.shift();
    return made;
  };

  const render = (place) => {
    const made = place.dataset.cost === 'dots' ? dots(place) : against(place, place.dataset.cost);
    if (made) return draw(place, made);
    place.dataset.drawn = 'empty';
    place.replaceChildren(Object.assign(document.createElement('p'), { className: 'empty', textContent: 'None of the chosen models has this number.' }));
  };

  const again = () => places.filter((place) => place.dataset.drawn).forEach(render);
  const all = (checked) => {
    for (const box of boxes) box.checked = checked;
    again();
  };
  const zoomed = (by) => {
    zoom = Math.min(8, Math.max(0, zoom + by));
    again();
  };

  places.forEach((place) => whenSeen(place, () => render(place)));
  metric.addEventListener('change', () => zoomed(-zoom));
  axis.addEventListener('change', () => zoomed(-zoom));
  boxes.forEach((box) => box.addEventListener('change', again));
  at('in').addEventListener('click', () => zoomed(1));
  at('out').addEventListener('click', () => zoomed(-1));
  at('all').addEventListener('click', () => all(true));
  at('none').addEventListener('click', () => all(false));
})();
