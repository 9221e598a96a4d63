"""What runs in the browser of a visitor of app.py."""
from support.answers import MOVES

# Writes the state of the page into its address.
REMEMBER = """(...all) => {
    const [weights, first, count, truncation, mine, z, ...others] = all.slice(8), address = new URL(window.location);
    const moves = others.slice(0, MOVES), labels = others.slice(MOVES);
    Object.entries({weights, first, count, truncation, mine, z, moves, labels}).forEach(([key, value]) =>
        value.length === 0 ? address.searchParams.delete(key) : address.searchParams.set(key, value));
    window.history.replaceState(null, "", address);
    return all;
}""".replace("MOVES", str(len(MOVES)))
# Lets the visitor choose a photo, makes it small, shows it on the visitor's own page, and gives it as the address of a JPEG.
CHOOSE = """async (weights) => {
    const input = Object.assign(document.createElement("input"), {type: "file", accept: "image/*"});
    const file = await new Promise(chosen => {
        input.onchange = () => chosen(input.files[0]);
        input.oncancel = () => chosen(null);
        input.click();
    });
    if (!file) return [weights, ""];
    const photo = await createImageBitmap(file).catch(() => null);
    if (!photo) return [weights, "unreadable"];
    const scale = Math.min(1, SIDE / Math.max(photo.width, photo.height)), canvas = document.createElement("canvas");
    canvas.width = Math.round(scale * photo.width), canvas.height = Math.round(scale * photo.height);
    canvas.getContext("2d").drawImage(photo, 0, 0, canvas.width, canvas.height);
    const address = canvas.toDataURL("image/jpeg", 0.92);
    document.querySelector("#photo").innerHTML = `<img style="max-height: 200px">`;
    document.querySelector("#photo img").src = address;
    return [weights, address];
}""".replace("SIDE", "1024")
