// Toasts by keyboard: F6 to the newest toast and back, Escape, and where the focus goes afterwards.

/** Handle the keys of `home`, an <om-toasts>; returns a function that puts the focus back. */
export function keyboard(home) {
  const { box, shadowRoot } = home;
  let from = null;
  const back = () => {
    shadowRoot.activeElement?.blur(); // the page's body cannot be focused
    from?.focus();
  };

  box.addEventListener("focusin", ({ relatedTarget }) => {
    if (relatedTarget && !shadowRoot.contains(relatedTarget)) from = relatedTarget;
  });
  addEventListener("keydown", (event) => {
    const shown = home.toasts.filter(({ item }) => item.isConnected);
    const focused = shown.find(({ item }) => item.matches(":focus-within"));
    const inside = shadowRoot.activeElement;
    if (!shown.length || event.defaultPrevented || event.isComposing) return;
    if (event.key === "F6") {
      if (inside) back();
      else {
        from = document.activeElement;
        shown.at(-1).item.focus();
      }
    } else if (event.key === "Escape" && (inside || !document.querySelector("dialog:modal, :popover-open"))) {
      (focused ?? shown.at(-1)).dismiss();
    } else {
      return; // Escape closes the page's own dialog or popover first
    }
    event.preventDefault();
  });
  return back;
}
