"""Plots: schedules, noising, trajectories and step grids, as matplotlib figures.

    from zoo.inspection.plots.schedules import plot_schedules
    from zoo.inspection.plots.style import save
    from zoo.diffusion.schedules import CosineSchedule, LinearSchedule

    save(plot_schedules({"cosine": CosineSchedule(), "linear": LinearSchedule()}), "schedules.svg")

| module | what it draws |
|---|---|
| `style` | nothing of its own: colours, type, margins, and saving; the one place for all of them |
| `schedules` | alpha_t, sigma_t and log-SNR over t |
| `noising` | an image as it is noised |
| `grids` | where step grids put their nodes in log-SNR |
| `trajectory` | x_t and the estimate of x0 over the steps of a run |

Figures are made without pyplot: nothing global, no window, the same bytes each time.
"""
