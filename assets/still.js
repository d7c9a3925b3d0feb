() => {
  // Whoever wants less motion starts the videos themselves: those that begin without a press on a player are held.
  const still = window.matchMedia('(prefers-reduced-motion: reduce)');
  let pressed = 0;
  for (const kind of ['pointerdown', 'keydown']) {
    window.addEventListener(kind, event => {
      if (event.target.closest?.('.block')?.querySelector('video')) pressed = event.timeStamp;
    }, true);
  }
  window.addEventListener('play', event => {
    if (still.matches && event.timeStamp - pressed > 1000) event.target.pause();
  }, true);
}
