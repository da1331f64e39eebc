from fusemodel.cli import main

main()
