/**
 * The one place that knows where Preact and htm come from, and the two helpers that their small build lacks.
 */

import { Component, h, html, render, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";

/** A component that renders again only when one of its properties is another object or value. */
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

/** Class names from an object: those whose value holds. */
export const classes = (names) =>
  Object.keys(names)
    .filter((name) => names[name])
    .join(" ");

export { h, html, render, useEffect, useMemo, useRef, useState };
