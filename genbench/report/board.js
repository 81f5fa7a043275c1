// The leaderboard: sorting by mouse and keyboard, arrow keys between cells, and each cell's protocol.
'use strict';

(() => {
  const tips = read('data-tips') || { texts: [], protocols: {} };
  const tip = document.getElementById('tip');

  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };

  const sort = (head) => {
    const rising = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of head.parentNode.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const body = head.closest('table').tBodies[0];
    const value = (row) => row.cells[head.cellIndex].dataset.value || '';
    const rows = [...body.rows].filter((row) => value(row) !== '');
    rows.sort((a, b) => (rising ? 1 : -1) * compare(value(a), value(b)));
    body.append(...rows, ...[...body.rows].filter((row) => value(row) === '')); // missing values come last
  };

  const element = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });

  const show = (cell) => {
    const said = tips.texts[cell.dataset.tip];
    const list = document.createElement('dl');
    const protocol = tips.protocols[said.protocol];
    for (const [name, text] of [...Object.entries(said.facts), ...Object.entries(protocol), ['protocol hash', said.protocol]]) {
      const pair = document.createElement('div');
      pair.append(element('dt', name), element('dd', text));
      list.append(pair);
    }
    tip.replaceChildren(Object.assign(element('div', said.title), { className: 'title' }), list);
    tip.hidden = false;
    cell.setAttribute('aria-describedby', 'tip');
    const at = cell.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left), window.innerWidth - tip.offsetWidth - 8);
    const below = at.bottom + 6 + tip.offsetHeight < window.innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - tip.offsetHeight - 6)}px`;
  };

  const hide = () => {
    tip.hidden = true;
    document.querySelectorAll('[aria-describedby=tip]').forEach((cell) => cell.removeAttribute('aria-describedby'));
  };

  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

  const move = (cell, [down, right]) => {
    const rows = cell.closest('tbody').rows;
    let [y, x] = [[...rows].indexOf(cell.parentNode) + down, cell.cellIndex + right];
    while (rows[y] && rows[y].cells[x] && !rows[y].cells[x].dataset.tip) [y, x] = [y + down, x + right];
    const next = rows[y] && rows[y].cells[x];
    if (!next) return;
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };

  for (const table of document.querySelectorAll('table.board')) {
    table.querySelectorAll('thead button').forEach((button) => {
      button.addEventListener('click', () => sort(button.closest('th')));
    });
    const cells = [...table.querySelectorAll('td[data-tip]')];
    if (cells.length) cells[0].tabIndex = 0;
    for (const cell of cells) {
      cell.addEventListener('mouseenter', () => show(cell));
      cell.addEventListener('mouseleave', hide);
      cell.addEventListener('focus', () => show(cell));
      cell.addEventListener('blur', hide);
    }
    table.addEventListener('keydown', (event) => {
      const cell = event.target.closest('td[data-tip]');
      if (event.key === 'Escape') hide();
      if (!cell || !step[event.key]) return;
      event.preventDefault();
      move(cell, step[event.key]);
    });
  }
  const follow = () => {
    const cell = document.activeElement.closest('td[data-tip]'); // focus may have scrolled it into view
    if (cell && !tip.hidden) show(cell);
    else hide();
  };
  window.addEventListener('scroll', follow, { passive: true });
})();
