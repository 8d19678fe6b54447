from gradtwin.comparisons.cli.app import main

main()
