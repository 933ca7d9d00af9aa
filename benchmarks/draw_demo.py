"""Draw the head that comes with `heatmask demo` anew: ``python benchmarks/draw_demo.py``."""

from phantom import draw_demo, write_phantom

from heatmask.demo import IMAGE, REFERENCE

if __name__ == "__main__":
    write_phantom(draw_demo(), IMAGE, REFERENCE)
