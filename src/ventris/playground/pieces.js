"use strict";
// Text and tokens come side by side: the text is exact, the tokens know where they came from. Tokens that are parts
// of one character cannot be written alone, and the end of a text may be held back until it is known not to stop it.

const BROKEN = "\uFFFD";

class Pieces {
  constructor() {
    this.tokens = [];
    this.text = "";
    this.last = "target";
  }

  // Takes what a chunk brought and returns pieces { text, source, step } that can be shown now.
  push(text, tokens, step) {
    this.text += text;
    this.tokens.push(...tokens.map((token) => ({ ...token, step })));
    const ready = [];
    while (this.tokens.length && this.text) {
      const first = this.tokens[0];
      const known = this.tokens.findIndex((token) => !token.text.includes(BROKEN));
      if (known === 0 && this.text.startsWith(first.text)) ready.push(this.#take(first.text.length, 1));
      else if (known === 0 && first.text.startsWith(this.text)) break;
      else if (known > 0 && this.text.includes(this.tokens[known].text)) {
        ready.push(this.#take(this.text.indexOf(this.tokens[known].text), known));
      } else if (known <= 0) ready.push(this.#take(this.text.length, this.tokens.length));
      else break;
    }
    return ready.filter((piece) => piece.text);
  }

  // What is left when the answer has ended; tokens without text were cut off.
  finish() {
    const rest = this.text ? [this.#take(this.text.length, this.tokens.length)] : [];
    this.tokens = [];
    return rest;
  }

  #take(length, count) {
    const first = this.tokens[0] ?? { source: this.last, step: null };
    const text = this.text.slice(0, length);
    this.text = this.text.slice(length);
    this.tokens.splice(0, count);
    this.last = first.source;
    return { text, source: first.source, step: first.step };
  }
}
