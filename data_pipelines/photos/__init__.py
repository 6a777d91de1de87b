"""What all data sets of COCO photos share: finding the files, listing what is left out, writing records."""
