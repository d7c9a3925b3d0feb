() => {
  // A page that was out of sight may have missed something: a phone slept, or another tab began a job.
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') document.querySelector('#look-again')?.click();
  });
}
