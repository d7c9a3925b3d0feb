() => {
  // A card of the library that is pointed at, or has the keyboard's focus, plays its video over its picture.
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
  const begin = card => {
    const picture = card?.querySelector('.poster');
    if (!picture || calm.matches || picture.querySelector('video')) return;
    const {root = '', api_prefix = '/gradio_api'} = window.gradio_config ?? {};
    const video = document.createElement('video');
    const path = card.dataset.film.split('/').map(encodeURIComponent).join('/');
    Object.assign(video, {muted: true, loop: true, playsInline: true, tabIndex: -1, src: `${root}${api_prefix}/file=${path}`});
    picture.append(video);
    video.play().catch(() => {});
  };
  const end = card => card?.querySelector('.poster video')?.remove();
  const card = event => event.target.closest?.('[data-film]');
  const leaves = event => card(event) && !card(event).contains(event.relatedTarget);

  document.addEventListener('pointerover', event => { if (event.pointerType !== 'touch') begin(card(event)); });
  document.addEventListener('focusin', event => begin(card(event)));
  document.addEventListener('pointerout', event => { if (leaves(event) && !card(event).matches(':focus-within')) end(card(event)); });
  document.addEventListener('focusout', event => { if (leaves(event) && !card(event).matches(':hover')) end(card(event)); });
}
