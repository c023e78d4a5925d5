import { ask, keys, made, say, shown, turn } from './page.js';

const POLL_MS = 500;
const REST_MS = 250; // a key pressed twice is no vote on a pair that nobody has seen
const problem = document.getElementById('problem');
const at = (id) => document.getElementById(id);
const votes = { one: '1', two: '2', neither: '0' };
let now = null;
let isBusy = false;
let isResting = false;
let timer = 0;

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function showResult(result) {
  const place = at('result');
  place.replaceChildren(made('h2', '', 'Result'));
  place.append(made('p', 'strong text', `${result.candidate} against ${result.live}`));
  place.append(made('p', '', `${result.wins} won, ${result.losses} lost, ${result.ties} tied (${result.identical} of them the same answers)`));
  place.append(made('p', '', result.rate === null ? 'No vote decides: there is no win rate.' :
    `Win rate ${percent(result.rate)} of the votes that decide, 95 % interval ${percent(result.lower)} to ${percent(result.upper)}`));
  place.append(made('p', 'soft', 'Saved. This window can be closed.'));
}

const words = {
  waiting: 'The answers are being written',
  pair: '',
  done: 'All pairs are judged. Finish shows the result; the last vote can still be taken back.',
  finished: '',
};

function show(told) {
  const isNew = !now || told.pair !== now.pair || told.state !== now.state;
  now = told;
  at('progress').max = told.total;
  at('progress').value = told.done;
  at('count').textContent = `${told.done} of ${told.total}`;
  at('status').textContent = words[told.state];
  at('judging').hidden = told.state !== 'pair';
  at('result').hidden = told.state !== 'finished';
  if (told.problem) say(told.problem);
  if (told.state === 'pair' && isNew) {
    at('prompt').replaceChildren(...told.messages.map((one) => turn(one.role, one.content)));
    at('first').replaceChildren(shown(told.answers[0]));
    at('second').replaceChildren(shown(told.answers[1]));
    for (const id of ['prompt', 'first', 'second']) at(id).scrollTop = 0;
    isResting = true;
    setTimeout(() => { isResting = false; enable(); }, REST_MS);
  }
  if (told.state === 'finished') showResult(told.result);
  clearTimeout(timer);
  if (told.state === 'waiting') timer = setTimeout(poll, POLL_MS);
  enable();
}

function enable() {
  const isPair = now && now.state === 'pair';
  for (const id of Object.keys(votes)) at(id).disabled = isBusy || isResting || !isPair;
  at('undo').disabled = isBusy || !now || !now.can_undo || now.state === 'finished';
  at('finish').disabled = isBusy || !now || now.state === 'finished';
}

async function send(path, body) {
  if (isBusy) return;
  isBusy = true;
  enable();
  const told = await ask(path, body);
  isBusy = false;
  if (told) show(told);
  else if (path !== 'view') await again();
  enable();
}

/** What there is now, beside what was said against what was wanted: another window may have gone on. */
async function again() {
  const words = problem.textContent;
  const told = await ask('view');
  if (!told) return;
  show(told);
  say(words);
}

function vote(choice) {
  if (!at('one').disabled) send('vote', { pair: now.pair, choice });
}

/** Beside what the person does, who may take back or finish meanwhile. */
async function poll() {
  const told = await ask('view');
  if (told && !isBusy) show(told);
}

for (const [id, choice] of Object.entries(votes)) at(id).addEventListener('click', () => vote(choice));
at('undo').addEventListener('click', () => send('undo', {}));
at('finish').addEventListener('click', () => send('finish', {}));
keys({
  1: () => vote('1'), 2: () => vote('2'), 0: () => vote('0'),
  u: () => { if (!at('undo').disabled) send('undo', {}); },
});
send('view');
