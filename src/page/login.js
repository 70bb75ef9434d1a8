// The dialog that asks for the secret: at first, and again when the server does not know the login any more.

import { sendsSecret, signIn } from './api.js';
import { h, openDialog } from './dom.js';
import { t } from './text.js';

// Resolves once the server accepts it. Cannot be dismissed: without it there is nothing to see.
export function askForSecret(app, reply = null) {
  return new Promise((resolve) => {
    let error = null;
    let [isBusy, isDone] = [false, false];
    const submit = async (event) => {
      event.preventDefault();
      const field = event.target.querySelector('input');
      if (isBusy || !field.value) return;
      [isBusy, error] = [true, null];
      dialog.render();
      try {
        await signIn(field.value);
        isDone = true;
        dialog.close();
        return resolve();
      } catch (problem) {
        error = problem.needsSignIn ? t('login.wrong', { why: problem.message }) : problem.message;
      }
      isBusy = false;
      dialog.render();
      field.select();
    };
    const view = () =>
      h('form', { onsubmit: submit, class: 'login' },
        h('h2', { id: 'login-title' }, t('signIn')),
        h('p', {}, reply ? t('login.again') : t('login.what')),
        sendsSecret() && h('p', { class: 'note', test: 'login-header' }, t('login.header')),
        h('label', {}, t('secret'),
          h('input', { type: 'password', autocomplete: 'current-password', autofocus: true, required: true, test: 'secret' })),
        h('p', { role: 'alert', class: 'problem', test: 'login-error' }, error),
        h('button', { class: 'main', disabled: isBusy, test: 'sign-in' }, isBusy ? t('wait') : t('signIn')));
    const dialog = openDialog('login', view, { canClose: false });
    // A browser closes it all the same if Escape is pressed twice.
    dialog.onclose = () => isDone || resolve(askForSecret(app, reply));
    app.render();
  });
}
