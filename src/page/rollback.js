// Going back to an earlier state: the difference first, then the change, then the offer to undo it.

import { call } from './api.js';
import { number, time } from './format.js';
import { planOf, review } from './review.js';
import { t } from './text.js';

// `moment` is one of { to_seq }, { to_time } and { to_snapshot }.
export function rollBack(app, moment, title = titleOf(moment)) {
  return review(app, {
    title, verb: t('rollback.verb'), isDanger: true,
    load: async () => planOf(await call('rollbackJournal', { ...moment, dry_run: 1, detail: 200 }, undefined, 600_000)),
    apply: async (plan) => {
      const reply = await call('rollbackJournal', { ...moment, if_seq: plan.seq }, undefined, 600_000);
      return { text: t('rollback.done', { seq: number(reply.data.to) }), action: undo(app, reply.data.before) };
    },
  });
}

function titleOf({ to_seq: seq, to_time: at, to_snapshot: snapshot }) {
  if (at !== undefined) return t('rollback.time', { time: time(at) });
  return t(snapshot === undefined ? 'rollback.seq' : 'rollback.snapshot', { seq: number(seq ?? snapshot) });
}

// The button that goes back to how it was at a change.
export const undo = (app, seq) => ({ text: t('undo'), run: () => rollBack(app, { to_seq: seq }, t('undo.title')) });
