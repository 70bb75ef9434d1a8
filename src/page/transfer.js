// Import of a file, shown before it is done, and export as a file.

import { call } from './api.js';
import { button, h } from './dom.js';
import { number } from './format.js';
import { isEmpty, planOf, planView } from './review.js';
import { undo } from './rollback.js';
import { t } from './text.js';

const MOST_BYTES = 64 * 1024 * 1024;
// Lines around a bad one that are shown with it.
const AROUND = 2;
// Of each of them.
const MOST_CHARS = 500;

export const shows = 0;

let file = null;
let mode = 'merge';
let plan = null;
let errors = [];
let problem = null;
let isConflict = false;
let busy = null;
let isOver = false;
// After an import: how many it concerns.
let started = null;
let looks = 0;

export function enter() {}

async function take(app, given) {
  if (!given || busy) return;
  const mine = ++looks;
  [file, plan, errors, problem, isConflict, started] = [null, null, [], null, false, null];
  if (given.size > MOST_BYTES) {
    problem = t('import.large', { name: given.name });
    return app.render();
  }
  try {
    // What is not UTF-8 must not become something else.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(await given.arrayBuffer());
    // Another file has been given meanwhile.
    if (mine !== looks) return;
    file = { name: given.name, text };
  } catch {
    if (mine !== looks) return;
    problem = t('import.utf8', { name: given.name });
    return app.render();
  }
  return preview(app);
}

async function preview(app) {
  const mine = ++looks;
  // What is shown is what is done then.
  const asked = { mode, text: file.text };
  [plan, errors, problem, isConflict, busy] = [null, [], null, false, t('import.reading')];
  app.render();
  try {
    const reply = await call('importJournal', { mode, dry_run: 1, detail: 200 }, asked.text, 600_000);
    if (mine !== looks) return;
    plan = { ...planOf(reply), ...asked };
  } catch (error) {
    if (mine !== looks) return;
    problem = error.message;
    errors = excerptsOf(error.reply?.errors ?? [], asked.text);
  }
  busy = null;
  app.render();
}

async function apply(app) {
  [busy, problem, isConflict] = [t('import.doing'), null, false];
  app.render();
  try {
    const concerned = plan.added.length + plan.changed.length;
    await call('importJournal', { mode: plan.mode, if_seq: plan.seq }, plan.text, 600_000);
    app.notify(t('import.done', { name: file.name }), { action: plan.seq === undefined ? null : undo(app, plan.seq) });
    started = concerned;
    [file, plan] = [null, null];
  } catch (error) {
    [problem, isConflict] = [error.message, error.isConflict === true];
  }
  busy = null;
  app.render();
}

export function view(app) {
  return h('div', { class: 'cards' }, importView(app), exportView(app));
}

function importView(app) {
  const drop = (event) => {
    event.preventDefault();
    isOver = false;
    take(app, event.dataTransfer.files[0]);
  };
  const over = (value) => (event) => {
    event.preventDefault();
    if (isOver === value || (busy && value)) return;
    isOver = value;
    app.render();
  };
  const choose = (event) => {
    const [given] = event.target.files;
    take(app, given);
    // The same file again is a change, too: somebody may have mended it.
    event.target.value = '';
  };
  const setMode = (event) => {
    mode = event.target.value;
    // It is off while the server looks, and loses the focus.
    if (file) preview(app).then(() => document.activeElement === document.body && event.target.focus());
  };
  const radio = (value) =>
    h('label', { class: 'check' },
      h('input', { type: 'radio', name: 'mode', value, checked: mode === value, onchange: setMode, test: `mode-${value}` }),
      ' ', t(`import.${value}`));
  const forget = () => {
    [file, plan, errors, problem, isConflict] = [null, null, [], null, false];
    app.render();
  };
  return h('section', { class: 'card import', 'aria-labelledby': 'card-import' },
    h('h2', { id: 'card-import' }, t('import')),
    h('p', {}, t('import.what')),
    h('fieldset', { disabled: busy !== null }, h('legend', {}, t('import.mode')), radio('merge'), radio('replace')),
    h('div', { class: isOver ? 'drop over' : 'drop', ondrop: drop, ondragover: over(true), ondragleave: over(false), test: 'drop' },
      h('span', {}, t('import.drop'), ' '),
      h('label', { class: 'button' }, t('import.choose'),
        h('input', {
          class: 'hidden', type: 'file', accept: '.csv,.json,.txt', disabled: busy !== null, onchange: choose, test: 'file',
        }))),
    busy && h('p', { role: 'status', class: 'busy' }, h('progress', { 'aria-label': busy }), ' ', busy),
    h('div', { role: 'alert', test: 'import-error' },
      isConflict && h('p', { class: 'problem', test: 'conflict' }, t('review.conflict')),
      problem && !errors.length && h('p', { class: 'problem', dir: 'auto' }, problem),
      errors.length > 0 && badLines()),
    plan && h('div', { test: 'import-preview' }, h('h3', {}, t('import.preview', { name: file.name })),
      h('div', { class: 'scroll tall', tabindex: 0, role: 'region', 'aria-label': t('review.what') }, planView(plan))),
    file && !busy && h('div', { class: 'buttons' },
      button('import-cancel', t('cancel'), forget),
      button('import-again', t('review.again'), () => preview(app)),
      button('import-apply', t('import.apply'), () => apply(app),
        { class: 'main', disabled: !plan || isEmpty(plan) || isConflict })),
    started !== null && progressView(app));
}

// Of each error, the lines of the file that are wrong, with those around them; of a document, its item. Made once: the file
// may be large.
function excerptsOf(errors, text) {
  const lines = errors.some(({ line }) => line !== undefined) ? text.split(/\r?\n/) : [];
  const items = errors.some(({ item }) => item !== undefined) ? itemsOf(text) : null;
  return errors.map(({ msg, line, item }) => {
    if (line !== undefined) {
      const from = Math.max(1, line - AROUND);
      const around = lines.slice(from - 1, line + AROUND);
      return { msg, rows: around.map((text, index) => [from + index, text.slice(0, MOST_CHARS), from + index === line]) };
    }
    const bad = items?.[item];
    return { msg, rows: bad === undefined ? [] : [[item, JSON.stringify(bad).slice(0, MOST_CHARS), true]] };
  });
}

function badLines() {
  const row = ([at, text, isBad]) =>
    h('li', { class: isBad && 'is-bad', test: isBad ? 'bad-line' : 'line' },
      h('span', { class: 'no' }, at), h('bdi', {}, text));
  return h('div', { class: 'bad', test: 'bad-lines' },
    h('h3', {}, t('import.bad', { n: errors.length, count: number(errors.length) })),
    errors.map(({ msg, rows }) =>
      h('div', { class: 'excerpt' }, h('p', { dir: 'auto' }, msg), h('ol', { class: 'source' }, rows.map(row)))));
}

function itemsOf(text) {
  try {
    const whole = JSON.parse(text);
    if (Array.isArray(whole)) return whole;
    const inner = whole.format ? whole : whole.data;
    return Array.isArray(inner) ? inner : inner.entries;
  } catch {
    return null;
  }
}

// The file is in the journal; what it asks for starts, and this says how far that is.
function progressView(app) {
  if (!app.status) return null;
  const { now } = app.status;
  const open = now.connecting + now.waiting;
  const all = open + now.playing + now.retrying + now.down + now.blocked;
  return h('div', { test: 'import-progress' },
    h('p', {}, t('import.starting', { n: started, count: number(started), open: number(open), playing: number(now.playing) })),
    h('progress', { max: Math.max(1, all), value: all - open, 'aria-label': t('import.progress') }),
    ' ', h('a', { href: '#proxies' }, t('tab.proxies')));
}

async function download(app, reveal) {
  try {
    const reply = await call('exportJournal', { reveal }, undefined, 600_000);
    const blob = new Blob([JSON.stringify(reply.data, null, 1)], { type: 'application/json' });
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(':', '');
    const link = h('a', { href: URL.createObjectURL(blob), download: `zlm-journal-${stamp}${reveal ? '' : '-hidden'}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    app.notify(t('export.done', { n: reply.data.entries.length, count: number(reply.data.entries.length) }));
  } catch (error) {
    app.notify(error.message, { isError: true });
  }
}

function exportView(app) {
  return h('section', { class: 'card export', 'aria-labelledby': 'card-export' },
    h('h2', { id: 'card-export' }, t('export')),
    h('p', {}, t('export.reveal')), h('p', {}, button('export-reveal', t('export.with'), () => download(app, 1))),
    h('p', {}, t('export.hidden')), h('p', {}, button('export-hidden', t('export.without'), () => download(app, 0))));
}
