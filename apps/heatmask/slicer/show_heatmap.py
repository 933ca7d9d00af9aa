"""Lay the heatmap of a bundle over the scan: for the Python console of 3D Slicer.

The extension MONAI Label must be installed. In the console::

    exec(open("show_heatmap.py").read())
    show_heatmap("brain_mri_gp_unet_segmentation", "p1-flair")

The last is the scan's name on the server, which Next Sample gives its volume too.
"""

import tempfile

import qt
import slicer
from MONAILabelLib import MONAILabelClient


def show_heatmap(
    model, image, server="http://127.0.0.1:8000", user="", lowest=0.1, opacity=0.5, **options
):
    """Load the heatmap of a scan, show it over the volume that is shown, and say what was found.

    Parameters
    ----------
    model, image : str
        A bundle and a scan of the server.
    server, user : str
        The server's address, and your name where one logs in; you are asked for the password.
    lowest : float
        What lies below, between 0 and 1, is transparent.
    opacity : float
        Of the heatmap.
    options
        Of the bundle, such as ``gate=False``.

    Returns
    -------
    vtkMRMLScalarVolumeNode
        The heatmap, 0 to 1.
    """
    client = MONAILabelClient(server, tempfile.mkdtemp())
    if user:
        password = qt.QInputDialog.getText(
            None, model, f"Password of {user}", qt.QLineEdit.Password
        )
        client.update_auth(client.auth_token(user, password))
    options = {"result_extension": ".nrrd", **options}
    file, facts = client.infer(f"{model}_heatmap", image, options)
    volume = slicer.util.loadVolume(file, {"name": f"{image} heatmap", "show": False})
    display = volume.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeFileInferno.txt")
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetThreshold(lowest, 1.0)
    display.SetApplyThreshold(True)
    slicer.util.setSliceViewerLayers(foreground=volume, foregroundOpacity=opacity)
    slicer.util.infoDisplay(facts["text"], windowTitle=model)
    return volume
