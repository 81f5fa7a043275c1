// Draws the figures and sorts the leaderboard; everything it needs is in this file.
for (const place of document.querySelectorAll('.chart')) {
  const spec = JSON.parse(document.getElementById(place.dataset.spec).textContent);
  vegaEmbed(place, spec, { actions: false, renderer: 'svg' });
}

const number = (cell) => (cell.dataset.value === '' ? Infinity : Number(cell.dataset.value));

for (const button of document.querySelectorAll('th button')) {
  button.addEventListener('click', () => {
    const head = button.closest('th');
    const rising = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of head.parentNode.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', rising ? 'ascending' : 'descending');
    const body = head.closest('table').tBodies[0];
    const column = head.cellIndex;
    const key = (row) => number(row.cells[column]);
    const rows = [...body.rows].sort((a, b) => (rising ? key(a) - key(b) : key(b) - key(a)) || 0);
    const missingLast = rows.filter((row) => key(row) !== Infinity).concat(rows.filter((row) => key(row) === Infinity));
    body.append(...missingLast);
  });
}
