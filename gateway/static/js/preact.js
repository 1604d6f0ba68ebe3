/**
 * Preact and htm, imported in this one place, and two helpers that their small build lacks.
 */

import { Component, h, html, render, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";

/** Wraps a component so that it renders again only when one of its properties changed, by identity. */
export function memo(view) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const keys = new Set([...Object.keys(next), ...Object.keys(this.props)]);
      return [...keys].some((key) => next[key] !== this.props[key]);
    }

    render(props) {
      return h(view, props);
    }
  };
}

/** The keys of an object whose values are truthy, as the text of a class attribute. */
export const classes = (names) =>
  Object.keys(names)
    .filter((name) => names[name])
    .join(" ");

export { Component, h, html, render, useEffect, useMemo, useRef, useState };
