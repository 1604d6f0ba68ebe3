/** An error boundary: an error while drawing one part of the page does not take the other parts with it. */

import { Component, html } from "../preact.js";

/**
 * Draws its children. When drawing them throws, it shows a sentence with `name` instead, in a table row with `isRow`,
 * and tries again once `resetOn` is another object.
 */
export class ErrorBoundary extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ hasFailed: true });
  }

  componentDidUpdate(previous) {
    if (this.state.hasFailed && previous.resetOn !== this.props.resetOn) this.setState({ hasFailed: false });
  }

  render({ name, isRow, children }, { hasFailed }) {
    if (!hasFailed) return children;
    const sentence = html`<p class="problem" role="alert">${name} cannot be shown: its data makes no sense.</p>`;
    if (!isRow) return sentence;
    return html`<div class="row" role="row"><div class="cell cell-id" role="cell">${sentence}</div></div>`;
  }
}
