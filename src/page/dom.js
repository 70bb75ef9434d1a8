// Builds elements, and changes what is shown into what should be shown. Text is always a text node: nothing here, and
// nothing that uses it, can make markup of what it is given.

const HANDLERS = ['onclick', 'onchange', 'oninput', 'onsubmit', 'onkeydown', 'ontoggle', 'ondragover', 'ondragleave', 'ondrop'];
const PROPERTIES = ['value', 'checked', 'disabled', 'indeterminate', 'selected'];

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on') || PROPERTIES.includes(name)) element[name] = value;
    else if (name === 'test') element.setAttribute('data-test', value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...nodes(children));
  // A select has its value only once it has its options. A field without a value here keeps what is typed into it.
  if (props?.value !== undefined) [element.value, element.isGiven] = [props.value, true];
  return element;
}

// What is not there now keeps its place, so that what follows it stays the same element.
function nodeOf(child) {
  if (child instanceof Node) return child;
  const isNothing = child === null || child === undefined || child === false;
  return isNothing ? document.createComment('') : document.createTextNode(String(child));
}

const nodes = (children) => children.flat(9).map(nodeOf);

export const h = (tag, props, ...children) => build(document.createElement(tag), props, children);

export const svg = (tag, props, ...children) =>
  build(document.createElementNS('http://www.w3.org/2000/svg', tag), props, children);

// A button that is not the submit button of a form.
export const button = (test, text, onclick, props = {}) => h('button', { type: 'button', test, onclick, ...props }, text);

// A field with a few values to choose from; `props.value` is the one that is chosen.
export const select = (props, values, textOf) =>
  h('select', props, values.map((value) => h('option', { value, selected: value === props.value }, textOf(value))));

const idOf = (node) => node?.dataset?.id;
const isSame = (a, b) => a.nodeName === b.nodeName && idOf(a) === idOf(b) && a.dataset?.test === b.dataset?.test;

// Makes the children of `parent` what `children` say. Elements that stay keep focus, selection and scrolling.
export function morph(parent, ...children) {
  const wanted = nodes(children);
  const byId = new Map([...parent.childNodes].filter(idOf).map((node) => [idOf(node), node]));
  wanted.forEach((node, index) => {
    const place = parent.childNodes[index];
    const own = idOf(node) ? byId.get(idOf(node)) : place;
    if (own && isSame(own, node)) {
      if (own !== place) parent.insertBefore(own, place ?? null);
      update(own, node);
    } else if (place && !idOf(place) && !idOf(node)) {
      parent.replaceChild(node, place);
    } else {
      parent.insertBefore(node, place ?? null);
    }
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

function update(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // Whoever has opened something wants it open.
    if (name !== 'open' && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== 'open' && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of HANDLERS) old[name] = fresh[name];
  const { value, isGiven } = fresh;
  morph(old, [...fresh.childNodes]);
  for (const name of PROPERTIES) {
    if (name !== 'value' && fresh[name] !== undefined && old[name] !== fresh[name]) old[name] = fresh[name];
  }
  if (isGiven && old !== document.activeElement && old.value !== value) old.value = value;
}

// A modal dialog. `view(dialog)` gives its content each time that `dialog.render()` is called.
export function openDialog(name, view, { canClose = true } = {}) {
  const element = h('dialog', { 'aria-labelledby': `${name}-title`, test: `dialog-${name}` });
  const dialog = {
    element,
    render: () => element.isConnected && morph(element, view(dialog)),
    close: () => element.close(),
    open: () => {
      document.body.append(element);
      dialog.render();
      element.showModal();
    },
  };
  element.addEventListener('close', () => {
    element.remove();
    dialog.onclose?.();
  });
  element.addEventListener('cancel', (event) => (canClose && !dialog.isBusy) || event.preventDefault());
  dialog.open();
  return dialog;
}
