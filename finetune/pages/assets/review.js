import { ask, keys, made, say, shown, turn } from './page.js';

const at = (id) => document.getElementById(id);
const labels = { keep: 'kept', edit: 'edited', drop: 'dropped', open: 'undecided' };
let now = null;
let isBusy = false;
let isEditing = false;
let isJson = false;

function show(told) {
  now = told;
  isEditing = false;
  at('ending').hidden = true;
  at('progress').max = Math.max(1, told.total);
  at('progress').value = told.total - told.open;
  at('count').textContent = `${told.total - told.open} of ${told.total} decided: ${told.kept} kept, ${told.edited} edited, ${told.dropped} dropped`;
  const isRow = told.state === 'row';
  at('title').textContent = isRow ? `Row ${told.row}` : 'Review of rows';
  at('decision').hidden = !isRow;
  if (isRow) showRow(told);
  else for (const id of ['row', 'notes', 'editor']) at(id).hidden = true;
  at('status').textContent = told.state === 'done' ? 'All rows are decided. Finish writes those that are kept.' : '';
  if (told.state === 'finished') showEnd(made('p', 'strong text', `${told.out}: ${told.written} rows`), made('p', 'soft', 'Written. This window can be closed.'));
  enable();
}

function showRow(told) {
  at('decision').textContent = labels[told.decision];
  at('decision').className = `tag ${told.decision}`;
  const notes = at('notes').querySelector('ul');
  notes.replaceChildren(...told.notes.map((note) => {
    const item = made('li');
    item.append(made('span', `strong ${note.severity}`, `${note.severity}: ${note.name.replaceAll('_', ' ')}`), made('span', 'text', ` ${note.why}`));
    return item;
  }));
  at('notes').hidden = !told.notes.length;
  const place = at('row');
  place.replaceChildren(made('h2', '', told.form || 'No row'));
  if (told.turns.length) {
    place.append(...told.turns.map((one) => turn(one.role, one.text || (one.has_calls ? '(calls a tool)' : ''))));
  } else {
    place.append(shown(told.json));
  }
  place.hidden = false;
  if (at('editor').contains(document.activeElement)) document.activeElement.blur(); // keys are for the row again, at once
  at('editor').hidden = true;
  window.scrollTo(0, 0);
}

function showEnd(...parts) {
  at('ending').replaceChildren(...parts);
  at('ending').hidden = false;
}

function startEditing(asJson) {
  isEditing = true;
  isJson = asJson || !now.fields.length;
  const fields = isJson ? [{ name: 'JSON', text: now.json }] : now.fields;
  at('fields').replaceChildren(...fields.flatMap((field, number) => {
    const label = made('label', '', field.name);
    const area = made('textarea', isJson ? 'json' : '');
    label.htmlFor = area.id = `field-${number}`;
    area.value = field.text;
    area.dir = 'auto';
    area.spellcheck = false;
    return [label, area];
  }));
  at('as-json').hidden = isJson;
  at('fields').oninput = () => { at('as-json').hidden = true; }; // which would show the texts as they were
  at('row').hidden = true;
  at('editor').hidden = false;
  for (const area of at('fields').querySelectorAll('textarea')) area.style.height = `${Math.min(area.scrollHeight + 4, innerHeight / 2)}px`;
  const last = at('fields').querySelector('textarea:last-of-type');
  last.focus();
  last.setSelectionRange(0, 0);
  enable();
}

function stopEditing() {
  say('');
  showRow(now);
  isEditing = false;
  enable();
}

function save() {
  const texts = [...at('fields').querySelectorAll('textarea')].map((area, number) => kept(area.value, isJson ? now.json : now.fields[number].text));
  send('edit', isJson ? { row: now.row, json: texts[0] } : { row: now.row, texts });
}

/** A text area writes every end of line as \n: a text that nobody changed stays as it was. */
function kept(text, before) {
  return text === before.replace(/\r\n?/g, '\n') ? before : text;
}

function enable() {
  document.querySelector('.bar').hidden = isEditing;
  const isRow = now && now.state === 'row' && !isEditing && !isBusy;
  at('keep').disabled = !isRow || !now.form;
  for (const id of ['edit', 'drop']) at(id).disabled = !isRow;
  at('open').disabled = !isRow || now.decision === 'open';
  at('previous').disabled = isBusy || isEditing || !now || !(isRow ? now.previous : now.last);
  at('next').disabled = !isRow || !now.next;
  at('jump').disabled = !isRow || !now.open;
  at('finish').disabled = isBusy || isEditing || !now || now.state === 'finished';
  for (const id of ['save', 'cancel', 'as-json']) at(id).disabled = isBusy;
}

async function send(path, body) {
  if (isBusy) return;
  isBusy = true;
  enable();
  const told = await ask(path, body);
  isBusy = false;
  if (told) show(told);
  else enable();
}

function finish() {
  if (!now.open) {
    send('finish', {});
    return;
  }
  const keep = made('button', '', `Keep the ${now.open} undecided`);
  const drop = made('button', '', `Leave the ${now.open} undecided out`);
  const back = made('button', '', 'Go on reviewing');
  keep.addEventListener('click', () => send('finish', { rest: 'keep' }));
  drop.addEventListener('click', () => send('finish', { rest: 'drop' }));
  back.addEventListener('click', () => { at('ending').hidden = true; });
  const buttons = made('p');
  buttons.append(keep, ' ', drop, ' ', back);
  showEnd(made('p', 'strong', `${now.open} rows are undecided.`), buttons);
  at('ending').scrollIntoView({ block: 'center' });
  back.focus();
}

const actions = {
  keep: () => send('decide', { row: now.row, do: 'keep' }),
  drop: () => send('decide', { row: now.row, do: 'drop' }),
  open: () => send('decide', { row: now.row, do: 'open' }),
  edit: () => startEditing(false),
  previous: () => send(`view?row=${now.state === 'row' ? now.previous : now.last}`),
  next: () => send(`view?row=${now.next}`),
  jump: () => send('view'),
  finish,
};
for (const [id, action] of Object.entries(actions)) at(id).addEventListener('click', action);
at('cancel').addEventListener('click', stopEditing);
at('as-json').addEventListener('click', () => startEditing(true));
at('editor').addEventListener('submit', (event) => { event.preventDefault(); save(); });
at('editor').addEventListener('keydown', (event) => {
  if (isBusy) return;
  if (event.key === 'Escape') stopEditing();
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); save(); }
});
const press = (id) => () => { if (!at(id).disabled) actions[id](); };
keys({ k: press('keep'), d: press('drop'), e: press('edit'), u: press('open'), n: press('jump'), ArrowLeft: press('previous'), ArrowRight: press('next') });
send('view');
