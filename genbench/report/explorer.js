// The denoising explorer: a slider over the states of a sampler, next to the schedule at its times.
'use strict';

(() => {
  const entries = read('data-explorer') || [];
  const root = document.getElementById('explorer');
  if (!root || !entries.length) return;
  const at = (name) => document.getElementById(name);
  const [model, start, slider, said, play] = ['model', 'start', 'step', 'said', 'play'].map((n) => at(`explore-${n}`));
  const sheets = new Map(); // data URI → Image
  let timer = 0;

  const together = () => model.value === 'all';
  const sharing = entries.filter((one) => JSON.stringify(one.noise) === JSON.stringify(entries[0].noise));
  const entry = () => (together() ? sharing.reduce((a, b) => (b.kept.length > a.kept.length ? b : a)) : entries[Number(model.value)]);
  const first = () => Number(start.value); // index of the state where the trace begins
  const text = (value, digits = 2) => (value === null ? '∞' : value.toFixed(digits).replace('-', '−'));

  const sheet = (uri) => {
    if (!sheets.has(uri)) {
      const image = new Image();
      image.src = uri;
      sheets.set(uri, image.decode().then(() => image));
    }
    return sheets.get(uri);
  };

  // One row of a sprite as separate images with a gap. Each call replaces earlier ones on the same canvas.
  const strip = async (name, sprite, row, label, one = entry()) => {
    const canvas = at(`strip-${name}`).querySelector('canvas');
    const turn = (canvas.turn = (canvas.turn || 0) + 1);
    canvas.setAttribute('aria-label', label);
    const { shape: [height, width], images, sprites } = one;
    const image = await sheet(sprites[sprite]);
    if (turn !== canvas.turn) return;
    const zoom = Math.max(1, Math.ceil(96 / width));
    const gap = 8;
    const [w, h] = [images * (width * zoom + gap) - gap, height * zoom];
    if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, w, h);
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < images; i++) {
      context.drawImage(image, i * width, row * height, width, height, i * (width * zoom + gap), 0, width * zoom, height * zoom);
    }
  };

  const SIZE = { width: 400, height: 148, left: 34, right: 54, top: 8, bottom: 22 };

  const panel = (lines, position, title) => {
    const { width, height, left, right, top, bottom } = SIZE;
    const values = lines.flatMap((line) => line.values.filter((value) => value !== null));
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (high === low) high = low + 1;
    const last = lines[0].values.length - 1;
    const x = (i) => left + (i / last) * (width - left - right);
    const y = (value) => top + ((high - value) / (high - low)) * (height - top - bottom);
    const ends = lines.map((line) => [...line.values].reverse().find((value) => value !== null));
    const apart = ends.length === 2 && Math.abs(y(ends[0]) - y(ends[1])) < 12 ? 6 : 0;
    const drawn = lines.map((line, index) => {
      const points = line.values.map((value, i) => (value === null ? '' : `${x(i).toFixed(1)} ${y(value).toFixed(1)}`)).filter(Boolean);
      const now = line.values[position];
      const dot = now === null ? '' : `<circle class="dot ${line.name}" cx="${x(position)}" cy="${y(now)}" r="4"/>`;
      const end = y(ends[index]) + (index ? apart : -apart) + 4;
      return `<path class="${line.name}" d="M${points.join('L')}"/>${dot}<text class="${line.name}" x="${width - right + 5}" y="${end}">${line.label}</text>`;
    });
    const marks = [low, high].map((value) => `<text x="${left - 5}" y="${y(value) + 4}" text-anchor="end">${text(value, high - low > 5 ? 0 : 1)}</text>`);
    const zero = low < 0 && high > 0 ? `<path class="axis" d="M${left} ${y(0)}H${width - right}"/><text x="${left - 5}" y="${y(0) + 4}" text-anchor="end">0</text>` : '';
    return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">
      <path class="axis" d="M${left} ${top}V${height - bottom}H${width - right}"/>${zero}${marks.join('')}
      <path class="now" d="M${x(position)} ${top}V${height - bottom}"/>${drawn.join('')}
      <text x="${left}" y="${height - 6}">noise</text><text x="${width - right}" y="${height - 6}" text-anchor="end">image</text></svg>`;
  };

  const chart = (one, position) => {
    const pair = [{ name: 'alpha', label: 'α', values: one.alpha }, { name: 'sigma', label: 'σ', values: one.sigma }];
    const snr = [{ name: 'snr', label: 'log SNR', values: one.log_snr }];
    at('explore-chart').innerHTML = panel(pair, position, 'α and σ over the steps') + panel(snr, position, 'log signal-to-noise ratio over the steps');
  };

  // All models from the same noise, each at the same fraction of its own steps.
  const all = at('explore-all');
  for (const [index, one] of sharing.entries()) {
    const figure = document.createElement('figure');
    figure.id = `strip-all-${index}`;
    const said = Object.assign(document.createElement('figcaption'), { textContent: one.name });
    const canvas = document.createElement('canvas');
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', one.name);
    figure.append(said, canvas);
    all.append(figure);
  }

  const showTogether = () => {
    const share = Number(slider.value) / Number(slider.max);
    said.textContent = `${Math.round(100 * share)}% of the steps; state of each model`;
    slider.setAttribute('aria-valuetext', said.textContent);
    for (const [index, one] of sharing.entries()) {
      const place = Math.round(share * (one.kept.length - 1));
      const where = `${one.name} · ${one.sampler}, step ${one.kept[place]} of ${one.steps}`;
      at(`strip-all-${index}`).querySelector('figcaption').textContent = where;
      strip(`all-${index}`, 'generation_states', place, where, one);
    }
  };

  const show = () => {
    if (together()) return showTogether();
    const [one, begin, position] = [entry(), first(), Number(slider.value)];
    const name = begin ? `reconstruction_${begin}` : 'generation';
    const end = one.kept.length - 1;
    const where = `step ${one.kept[position]} of ${one.steps}`;
    const levels = `t = ${text(one.times[position], 3)}, α = ${text(one.alpha[position])}, σ = ${text(one.sigma[position])}, log SNR = ${text(one.log_snr[position], 1)}`;
    said.textContent = `${where} · ${levels}`;
    slider.setAttribute('aria-valuetext', `${where}, ${levels}`);
    const row = position - begin;
    strip('state', `${name}_states`, row, `State at ${where}`);
    if (position === end) strip('clean', `${name}_states`, row, 'The final image');
    else strip('clean', `${name}_predictions`, row, `Clean image predicted at ${where}`);
    at('strip-input').hidden = at('strip-target').hidden = !begin;
    if (begin) {
      strip('input', `${name}_states`, 0, 'Noisy input');
      strip('target', 'targets', 0, 'Clean target');
    }
    chart(one, position);
  };

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = '▶';
    play.setAttribute('aria-label', 'Play the steps');
  };

  const restart = () => {
    stop();
    slider.min = first();
    slider.max = entry().kept.length - 1;
    slider.value = first();
    show();
  };

  const choose = () => {
    const one = entry();
    const side = together();
    root.querySelector('.strips').hidden = side;
    root.querySelector('.schedule').hidden = side;
    root.querySelector('.stage').classList.toggle('wide', side);
    all.hidden = !side;
    start.disabled = side;
    const level = (i) => `test images, log SNR ${text(one.log_snr[i], 1)} (α ${text(one.alpha[i])}, σ ${text(one.sigma[i])})`;
    const options = [new Option('pure noise', 0), ...(side ? [] : one.reconstructions).map((i) => new Option(level(i), i))];
    start.replaceChildren(...options);
    at('explore-schedule').textContent = `Schedule ${one.schedule}, sampler ${one.sampler}`;
    restart();
  };

  play.addEventListener('click', () => {
    if (timer) return stop();
    if (slider.value === slider.max) slider.value = slider.min;
    play.textContent = '⏸';
    play.setAttribute('aria-label', 'Pause');
    timer = setInterval(() => {
      if (slider.value === slider.max) return stop();
      slider.value = Number(slider.value) + 1;
      show();
    }, 160);
  });
  model.addEventListener('change', choose);
  start.addEventListener('change', restart);
  slider.addEventListener('input', () => {
    stop();
    show();
  });
  whenSeen(root, () => {
    root.dataset.drawn = 'yes';
    choose();
  });
})();
