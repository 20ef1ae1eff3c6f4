// Replaces the content every five seconds and keeps the scroll position. The server renders and escapes the content.
setInterval(async () => {
  try {
    // What the operator types must stay.
    if (document.activeElement?.matches("main input, main select")) return;
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.body.classList.remove("away");
  } catch {
    document.body.classList.add("away");
  }
}, 5000);
