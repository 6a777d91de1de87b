"""What tests do on the page, in a browser."""

DONE = "document.querySelector('#words').innerText.includes('of the photo')"
TOAST = "[data-testid=toast-body]"
WHERE = "#where input, #where textarea"


def upload(page, file):
    page.set_input_files("#upload input[type=file]", str(file))


def begin(page, photo):
    upload(page, photo)
    page.wait_for_function("document.querySelector('#picture img')?.naturalWidth > 0")


def segment(page, phrase):
    page.fill("#phrase input, #phrase textarea", phrase)
    page.click("#ask")


def photo_on_screen(page):
    """Left, top, width and height of the photo itself, without the bars beside it: shown whole, never enlarged."""
    image = page.locator("#picture img")
    image.hover()  # Waits until the page has settled.
    frame = image.bounding_box()
    width, height = image.evaluate("shown => [shown.naturalWidth, shown.naturalHeight]")
    scale = min(frame["width"] / width, frame["height"] / height, 1)
    left, top = frame["x"] + (frame["width"] - width * scale) / 2, frame["y"] + (frame["height"] - height * scale) / 2
    return left, top, width * scale, height * scale


def on_screen(page, x, y):
    """A place in units of the photo, in pixels of the screen."""
    left, top, width, height = photo_on_screen(page)
    return left + x * width, top + y * height
