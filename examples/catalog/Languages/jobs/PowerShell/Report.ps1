param([int] $Warn = 90)
$ErrorActionPreference = 'Stop'
$full = 0
$drives = Get-PSDrive -PSProvider FileSystem | Where-Object { $_.Used + $_.Free -gt 0 }
foreach ($drive in $drives) {
    $percent = [math]::Floor(100 * $drive.Used / ($drive.Used + $drive.Free))
    Write-Output "$($drive.Root): $percent % used"
    if ($percent -ge $Warn) { $full++ }
}
Add-Content -Path $env:JOBBUS_PROGRESS -Value "100% $full full"
if ($full) { exit 3 }
