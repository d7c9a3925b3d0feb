() => {
  // A video dropped anywhere on the page restores its settings. A field that takes files itself has the first word:
  // it has prevented the browser's own answer (to leave the page and show the file) by the time the event gets here.
  let leaves;
  const shows = visible => {
    clearTimeout(leaves);
    document.querySelector('.drop-hint').hidden = !visible;
    if (visible) leaves = setTimeout(() => shows(false), 600);  // browsers repeat dragover, at least every 350 ms
  };
  const ours = event => event.dataTransfer?.types.includes('Files') && !event.defaultPrevented;

  window.addEventListener('dragover', event => {
    if (!ours(event)) return shows(false);
    event.preventDefault();
    event.dataTransfer.dropEffect = 'copy';
    shows(true);
  });
  window.addEventListener('drop', event => {
    shows(false);
    if (!ours(event)) return;
    event.preventDefault();
    const input = document.querySelector('#dropped input[type=file]');
    if (!input || !event.dataTransfer.files.length) return;
    const one = new DataTransfer();
    one.items.add(event.dataTransfer.files[0]);
    input.files = one.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  });
}
