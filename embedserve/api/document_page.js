// Open WebUI adds a text fragment (`#:~:text=…`), of which browsers leave a `#` here.
const passage = () => (location.hash.match(/^#chars=(\d{1,12}-\d{1,12})#?$/) || [])[1];
const show = () => {
  const query = new URLSearchParams(location.search);
  if (passage() && query.get("chars") !== passage()) {
    query.set("chars", passage());
    query.delete("from");
    location.replace("?" + query + location.hash);
  } else {
    const mark = document.querySelector("mark");
    if (mark) mark.scrollIntoView({ block: "center" });
  }
};
addEventListener("hashchange", show);
show();
