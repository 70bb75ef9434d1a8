// The dialog that adds a proxy or changes one. It asks for what is most often given by name, and for the rest as lines.

import { call } from './api.js';
import { button, h, openDialog, select } from './dom.js';
import { KINDS, chip, differences, planOf, review, textOf } from './review.js';
import { undo } from './rollback.js';
import { t } from './text.js';

const OF_JOURNAL = ['journal_label', 'journal_hours'];
const OF_BACKUPS = ['journal_backup_urls', 'journal_failover_sec', 'journal_failback'];
const FIELDS = {
  pull: ['url', OF_BACKUPS[0], 'vhost', 'app', 'stream', ...OF_JOURNAL, 'rtp_type', 'retry_count', ...OF_BACKUPS.slice(1)],
  push: ['dst_url', 'schema', 'vhost', 'app', 'stream', ...OF_JOURNAL],
  ffmpeg: ['src_url', 'dst_url', 'timeout_ms', 'ffmpeg_cmd_key', ...OF_JOURNAL],
};
const REQUIRED = {
  pull: ['url', 'vhost', 'app', 'stream'],
  push: ['dst_url', 'schema', 'vhost', 'app', 'stream'],
  ffmpeg: ['src_url', 'dst_url', 'timeout_ms'],
};
// What makes the key cannot change.
const OF_KEY = { pull: ['vhost', 'app', 'stream'], push: REQUIRED.push, ffmpeg: ['dst_url'] };
const CHOICES = {
  schema: ['rtsp', 'rtmp', 'srt'],
  rtp_type: ['', '0', '1', '2'],
  journal_failback: ['', 'auto', 'never'],
};
const EXPLAINED = [...OF_JOURNAL, 'journal_backup_urls', 'journal_failover_sec', 'retry_count', 'others'];
const NEW = { vhost: '__defaultVhost__', app: 'live', schema: 'rtsp', timeout_ms: '10000' };
const HIDDEN = '***';

// The fields of the form, all texts: backup URLs one a line, and what has no field of its own as name=value. What a line
// cannot hold is not shown, and stays as it is.
function formOf(kind, args) {
  const form = {};
  for (const name of FIELDS[kind]) form[name] = args[name] === undefined ? '' : textOf(args[name]);
  if (Array.isArray(args.journal_backup_urls)) form.journal_backup_urls = args.journal_backup_urls.join('\n');
  const others = Object.entries(args).filter(([name, value]) => !FIELDS[kind].includes(name) && !/[\r\n]/.test(name + textOf(value)));
  form.others = others.map(([name, value]) => `${name}=${textOf(value)}`).join('\n');
  return form;
}

const linesOf = (text) => text.split('\n').map((line) => line.trim()).filter(Boolean);

// The arguments in a form; throws what is wrong with it.
function argsOf(kind, form) {
  const args = {};
  for (const name of FIELDS[kind]) {
    const value = form[name].trim();
    if (!value) continue;
    args[name] = name === 'journal_backup_urls' ? linesOf(value) : value;
  }
  for (const line of linesOf(form.others)) {
    const at = line.indexOf('=');
    if (at < 1) throw new Error(t('edit.badLine', { line }));
    args[line.slice(0, at).trim()] = line.slice(at + 1).trim();
  }
  return args;
}

async function entryOf({ kind, key }, reveal) {
  const reply = await call('listJournal', { kind, prefix: key, limit: 1, reveal });
  if (reply.data[0]?.key !== key) throw new Error(t('edit.gone', { key }));
  return { ...reply.data[0], asOf: reply.journal.seq };
}

// Of a `row` of the list, or of a new proxy. Resolves to whether anything was changed.
export function edit(app, row) {
  return new Promise((resolve) => {
    let kind = row?.kind ?? 'pull';
    // As it was when the dialog began; what differs from it is what is changed.
    let entry = null;
    let form = formOf(kind, row ? {} : NEW);
    let before = { ...form };
    let [isRevealed, error, isBusy, isAsking] = [false, null, row !== null, false];
    let result = false;

    async function load(reveal) {
      isBusy = true;
      dialog.render();
      try {
        entry = await entryOf(row, reveal ? 1 : 0);
        before = formOf(kind, entry.args);
        form = { ...before };
        [isRevealed, error] = [reveal, null];
      } catch (problem) {
        error = problem.message;
      }
      isBusy = false;
      dialog.render();
      toFields();
    }

    const toFields = () => dialog.element.querySelector('.fields :enabled')?.focus();
    const isChanged = () => textOf(form) !== textOf(before);

    // What was typed is not thrown away unasked.
    function leave() {
      if (!isChanged()) return dialog.close();
      isAsking = true;
      dialog.render();
      dialog.element.querySelector('[data-test="editor-go-on"]').focus();
    }

    function discard() {
      form = { ...before };
      dialog.close();
    }

    function goOn() {
      isAsking = false;
      dialog.render();
      toFields();
    }

    async function submit(event) {
      event.preventDefault();
      [error, isAsking] = [null, false];
      try {
        const args = argsOf(kind, form);
        // Only what was changed here is changed: what the form does not hold exactly stays as it is.
        const changed = differences({ args: entry ? argsOf(kind, before) : {} }, { args });
        const hidden = changed.find(([, , value]) => value !== undefined && textOf(value).includes(HIDDEN));
        if (hidden) throw new Error(t('edit.hidden', { name: hidden[0] }));
        const done = await (entry ? change(app, entry, changed) : add(app, kind, args));
        if (done) {
          result = true;
          dialog.close();
        }
      } catch (problem) {
        error = problem.message;
      }
      dialog.render();
    }

    function setKind(value) {
      kind = value;
      before = formOf(kind, NEW);
      // What both kinds have a field for stays.
      form = { ...before, ...Object.fromEntries(Object.entries(form).filter(([name]) => FIELDS[kind].includes(name))) };
      dialog.render();
    }

    const set = (name) => (event) => {
      form[name] = event.target.value;
    };

    function field(name) {
      const isFixed = row !== null && OF_KEY[kind].includes(name);
      const common = {
        test: `field-${name}`, name, value: form[name], disabled: isFixed || isBusy, oninput: set(name), onchange: set(name),
        required: REQUIRED[kind].includes(name), autofocus: row === null && name === FIELDS[kind][0],
        spellcheck: 'false', autocomplete: 'off', dir: name.includes('url') ? 'ltr' : 'auto',
      };
      const isText = name === 'journal_backup_urls' || name === 'others';
      const input = CHOICES[name]
        ? select(common, CHOICES[name], (each) => t(`choice.${name}.${each}`))
        : h(isText ? 'textarea' : 'input', isText ? { ...common, rows: 3 } : common);
      return h('label', { class: isText || name.endsWith('url') ? 'wide' : '' },
        h('span', {}, t(`field.${name}`), ' ', name !== 'others' && h('code', {}, name)),
        input,
        EXPLAINED.includes(name) && h('small', {}, t(`hint.${name}`)));
    }

    const kindField = () =>
      h('label', {}, t('filter.kind'),
        select({ value: kind, test: 'field-kind', onchange: (event) => setKind(event.target.value) },
          KINDS, (each) => t(`kind.${each}`)));
    const revealField = () =>
      h('label', { class: 'check' },
        h('input', {
          type: 'checkbox', checked: isRevealed, disabled: isBusy, test: 'reveal',
          onchange: (event) => load(event.target.checked),
        }), ' ', t('edit.reveal'));

    const view = () =>
      h('form', { class: 'editor', onsubmit: submit },
        h('h2', { id: 'editor-title' }, row ? t('edit.title') : t('add.title')),
        row ? h('p', {}, h('bdi', { class: 'name' }, row.key), ' ', chip(kind)) : kindField(),
        h('div', { class: 'fields scroll tall' }, FIELDS[kind].map(field), field('others')),
        row && revealField(),
        h('p', { role: 'alert', class: 'problem', dir: 'auto', test: 'editor-error' }, error),
        h('div', { class: 'buttons' },
          button('editor-cancel', t('cancel'), leave),
          h('button', { class: 'main', disabled: isBusy, test: 'preview' }, t('preview'))),
        isAsking && isChanged() && h('div', { class: 'buttons', role: 'alert' },
          h('span', {}, t('edit.unsaved')), button('editor-discard', t('edit.discard'), discard),
          button('editor-go-on', t('edit.goOn'), goOn)));
    const dialog = openDialog('editor', view);
    dialog.element.addEventListener('cancel', (event) => {
      event.preventDefault();
      leave();
    });
    // A browser closes it all the same if Escape is pressed twice.
    dialog.onclose = () => {
      if (result || !isChanged()) return resolve(result);
      dialog.open();
      leave();
    };
    if (row) load(false);
  });
}

function add(app, kind, args) {
  // The scope in which nobody may add or change anything meanwhile.
  const scope = { kind, prune: 0, vhost: args.vhost, app: args.app };
  return review(app, {
    title: t('add.title'), verb: t('add'),
    load: async () => {
      const plan = planOf(await call('syncJournal', { ...scope, dry_run: 1, detail: 1 }, [args]), kind);
      if (!plan.added.length) throw new Error(t('add.exists'));
      return { ...plan, added: plan.added.map((item) => ({ ...item, to: { args } })) };
    },
    apply: async (plan) => {
      if (kind !== 'pull') {
        await call('syncJournal', { ...scope, if_seq: plan.seq }, [args]);
      } else {
        // Refuses what somebody else has added meanwhile, and nothing else.
        const [item] = (await call('addStreamProxies', {}, [args])).data;
        if (item.code !== 0) throw new Error(item.msg);
      }
      return { text: t('add.done', { key: plan.added[0].key }), action: undo(app, plan.seq) };
    },
  });
}

const applied = (args, changed) => {
  const whole = { ...args };
  for (const [name, , value] of changed) value === undefined ? delete whole[name] : (whole[name] = value);
  return whole;
};

function change(app, entry, changed) {
  const { kind, key } = entry;
  if (!changed.length) throw new Error(t('review.empty'));
  const given = Object.fromEntries(changed.map(([name, , value]) => [name, Array.isArray(value) ? JSON.stringify(value) : value ?? '']));
  // What somebody has changed since it was shown here is a conflict; after a second look it is not.
  let seen = entry;
  const shown = (how) => {
    const item = { kind, key, from: { args: seen.args }, to: { args: applied(seen.args, changed) } };
    return { added: [], removed: [], unchanged: 0, changed: [item], notes: [t(`change.${how}.what`)] };
  };

  const onPull = (dry_run) => call('updateStreamProxy', { ...given, key, dry_run, if_seq: seen.asOf });
  const onOther = async (dry_run) => {
    const whole = applied((await entryOf(entry, 1)).args, changed);
    const reply = await call('syncJournal', { kind, prune: 0, dry_run, if_seq: seen.asOf }, [whole]);
    if (reply.data.added.length) throw new Error(t('edit.otherKey'));
    return reply;
  };
  let [looks, before] = [0, entry.asOf];
  return review(app, {
    title: t('edit.title'), verb: t('save'),
    load: async () => {
      if (looks++ > 0) seen = await entryOf(entry, 0);
      const reply = await (kind === 'pull' ? onPull : onOther)(1);
      before = reply.journal.seq;
      return shown(kind === 'pull' ? reply.data.change : reply.data.in_place.length ? 'in_place' : 'replaced');
    },
    apply: async () => {
      await (kind === 'pull' ? onPull : onOther)(0);
      return { text: t('edit.done', { key }), action: undo(app, before) };
    },
  });
}
