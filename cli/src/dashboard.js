// The page again, every five seconds, without losing the reader's place. It is the server that makes it, and escapes it.
setInterval(async () => {
  try {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.body.classList.remove("away");
  } catch {
    document.body.classList.add("away");
  }
}, 5000);
