// Toasts by touch: a swipe to either side closes one.
const FAR_ENOUGH_PX = 72;

/** Let `item` follow a finger sideways; `away` is called when it was let go far enough. */
export function swipe(item, away) {
  let from = null;
  const by = (event) => event.clientX - from;
  const show = (distance) => {
    item.style.setProperty("translate", `${distance}px`);
    item.style.setProperty("opacity", String(Math.max(0.2, 1 - Math.abs(distance) / 300)));
  };
  item.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch" && !event.target.closest("button")) from = event.clientX;
  });
  item.addEventListener("pointermove", (event) => from !== null && show(by(event)));
  for (const end of ["pointerup", "pointercancel"]) {
    item.addEventListener(end, (event) => {
      if (from === null) return;
      const far = end === "pointerup" && Math.abs(by(event)) > FAR_ENOUGH_PX;
      from = null;
      if (far) away();
      else show(0);
    });
  }
}
