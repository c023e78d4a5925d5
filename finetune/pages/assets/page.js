// What both pages share: asking the server, and text that is never read as HTML.

const problem = document.getElementById('problem');

export function say(words) {
  problem.textContent = words;
}

/** What the server answers; null where it refuses or is gone, which is said on the page. */
export async function ask(path, body) {
  const options = body === undefined ? {} :
    { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  try {
    const reply = await fetch(path, options);
    const told = await reply.json();
    say(told.error || '');
    return told.error ? null : told;
  } catch {
    say('The command in the terminal has ended. What was decided is kept: run it again and open the address that it prints.');
    return null;
  }
}

/** An element with a class and a text. */
export function made(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** A text of data, in its own direction; a hint in place of none. */
export function shown(text) {
  const element = text.trim() ? made('div', 'text', text) : made('div', 'empty', text ? '(blank)' : '(empty)');
  element.dir = 'auto';
  return element;
}

export function turn(role, text) {
  const element = made('div', `turn ${['system', 'user', 'assistant', 'tool'].includes(role) ? role : ''}`);
  element.append(made('div', 'role', role), shown(text));
  return element;
}

/** Calls of keys: only plain presses, outside of text fields. */
export function keys(actions) {
  document.addEventListener('keydown', (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.closest('textarea, input, summary')) return;
    const action = actions[event.key] || actions[event.key.toLowerCase()];
    if (!action || (event.target.closest('button') && (event.key === 'Enter' || event.key === ' '))) return;
    event.preventDefault();
    action();
  });
}
